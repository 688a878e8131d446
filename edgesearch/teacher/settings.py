"""The section `pretrain.teacher`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgesearch.settings import (
    IN_COLOUR,
    TRAINED,
    AppliesTo,
    Count,
    Positive,
    Settings,
    UserPath,
    fault,
)

WITH_QUEUE = AppliesTo(
    "pretrain.teacher.loss is queue", lambda config: config.pretrain.teacher.loss == "queue"
)
WITH_MAPS = AppliesTo(
    "feature maps are compared (pretrain.teacher.dense)",
    lambda config: config.pretrain.wants_maps,
)


class TeacherSettings(Settings):
    """A trained network whose embeddings, or feature maps, the subnets learn.

    One of `onnx`, `torchscript`, `torchvision`, `timm` and `init`. The form of its input is taken
    from the file, torchvision or timm where they say it. The embedding of a file whose output is a
    feature map is the mean of its places.
    """

    onnx: UserPath | None = None
    """An ONNX file: images (N, 3, H, W) or (N, H, W, 3), float or uint8, to embeddings (N, D) or
    feature maps (N, D, H, W)."""
    torchscript: UserPath | None = None
    """A TorchScript file: normalised images (N, 3, H, W) to embeddings (N, D) or feature maps
    (N, D, H, W)."""
    torchvision: str | None = None
    """Name of a classifier of torchvision, used without its last layer; needs `weights`."""
    timm: str | None = None
    """Name of a network of timm, used without its classifier; needs `weights`."""
    init: bool = False
    """The public weights of `pretrain.init`, frozen."""
    weights: UserPath | None = None
    """File of the weights of a network of torchvision or timm."""
    size: Count | None = None
    """Height and width of its input, in pixels."""
    mean: Annotated[tuple[float, float, float] | None, Field(strict=False)] = None
    """Mean of each channel, for pixel values in 0 … 1."""
    std: Annotated[tuple[Positive, Positive, Positive] | None, Field(strict=False)] = None
    """Standard deviation of each channel, for pixel values in 0 … 1."""
    bgr: Annotated[bool, IN_COLOUR] = False
    """Whether blue is the first channel."""
    output: str | None = None
    """Name of an ONNX file's output; the first if null."""
    crops: Count = 4
    """Crops of each image that it embeds once, before the training."""
    loss: Annotated[Literal["cosine", "queue"], TRAINED] = "cosine"
    """What is compared: the embeddings themselves, or their similarities to a queue (SEED)."""
    dense: Annotated[bool | None, TRAINED] = None
    """Compare the last feature maps place by place instead of embeddings, mirrored as the view is.
    By default with densecl and the loss cosine, if the teacher has maps."""
    grid: Annotated[Count, TRAINED, WITH_MAPS] = 4
    """Most places along a side of the maps that are kept: larger ones are averaged. A crop takes
    2 · D · grid² bytes on the disk."""
    queue_size: Annotated[Count, TRAINED, WITH_QUEUE] = 1024
    """Embeddings of the teacher in the queue: a multiple of batch_size."""
    temperatures: Annotated[tuple[Positive, Positive], Field(strict=False), TRAINED, WITH_QUEUE] = (
        0.01,
        0.2,
    )
    """Temperatures of the teacher's similarities and of the subnets'."""

    @model_validator(mode="after")
    def _one_kind(self) -> TeacherSettings:
        kinds = ("onnx", "torchscript", "torchvision", "timm", "init")
        given = [kind for kind in kinds if getattr(self, kind)]
        if len(given) != 1:
            found = f"{len(given)} ({', '.join(given)})" if given else "none"
            raise fault(f"exactly one of {', '.join(kinds)} is required", found)
        if (self.weights is None) == (given[0] in ("torchvision", "timm")):
            needed = "is required with" if self.weights is None else "has no effect with"
            raise fault(f"`weights` {needed} {given[0]}")
        if self.dense and self.loss != "cosine":
            raise fault("the loss cosine is required with dense: a queue holds whole images")
        if self.output is not None and given[0] != "onnx":
            raise fault(f"`output` has no effect with {given[0]}")
        return self
