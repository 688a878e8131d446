"""The options of pre-training; defaults are those of the chosen method's paper on ImageNet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgesearch.pretrain.recipes import RECIPES
from edgesearch.settings import (
    NO_EFFECT,
    Batch,
    Count,
    CountFromZero,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Settings,
    UserPath,
    fault,
)

_TRAINING = RECIPES["moco_v2"].training
_OPTIONS = {
    name: value
    for defaults in reversed(RECIPES.values())
    for name, value in defaults.options.items()
}


class JitterSettings(Settings):
    """Random changes of colour; each strength is the range around no change."""

    brightness: NotNegative = 0.4
    """Strength of the change in brightness."""
    contrast: NotNegative = 0.4
    """Strength of the change in contrast."""
    saturation: NotNegative = 0.4
    """Strength of the change in saturation (no effect on one channel)."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Strength of the change in hue, as a share of the colour circle (none on one channel)."""
    probability: Fraction = 0.8
    """Share of the views that are changed."""


class AugmentationSettings(Settings):
    """How two views are made of an image; what a method does with it stands in its file.

    Source: Chen et al., "Improved Baselines with Momentum Contrastive Learning" (2020).
    """

    batched: bool = False
    """Augment whole batches at once: many times faster for small images of equal size."""
    crop_scale: Annotated[tuple[PositiveFraction, PositiveFraction], Field(strict=False)] = (
        0.2,
        1.0,
    )
    """Smallest and largest share of the image's area that a crop covers."""
    flip_probability: Fraction = 0.5
    """Share of the views that are mirrored; 0 where left and right differ (digits, text)."""
    jitter: JitterSettings = JitterSettings()
    """Random changes of colour."""
    grayscale_probability: Fraction = 0.2
    """Share of the views that lose their colour."""
    blur_probability: Fraction = 0.5
    """Share of the views that are blurred."""
    solarize_probability: Fraction = 0.0
    """Share of the views whose bright half is turned upside down (BYOL: of the second views)."""

    @field_validator("crop_scale")
    @classmethod
    def _rising(cls, crop_scale: tuple[float, float]) -> tuple[float, float]:
        if crop_scale[0] > crop_scale[1]:
            raise fault("the smaller share first is required")
        return crop_scale


def _own() -> Any:
    """A field whose value, where none is given, is that of the method."""
    return Field(default=None, validate_default=True)


class PretrainSettings(Settings):
    """How the supernet is trained without labels: a self-supervised method by the sandwich rule.

    What is left out is as in the method's paper; null means the same for the method's own
    options, optimizer, lr, weight_decay and warmup_epochs. An option that the method does not
    have is refused.

    Source: DATA (CVPR 2022), section 3; the papers in the files of `edgesearch.pretrain`.
    """

    method: Annotated[
        str, Field(description=f"The self-supervised method: one of {', '.join(RECIPES)}.")
    ] = "moco_v2"
    epochs: Count = 200
    """Passes over the images."""
    batch_size: Batch = 256
    """Images in each step, of all processes together."""
    optimizer: Literal["sgd", "lars"] = _own()
    """SGD, or LARS with a learning rate for each layer (BYOL, SimCLR)."""
    lr: Positive = _own()
    """Learning rate at its highest; it falls to 0 as a cosine."""
    weight_decay: NotNegative = _own()
    """Weight decay of the optimizer."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of the optimizer."""
    warmup_epochs: CountFromZero = _own()
    """Epochs in which the learning rate rises linearly; a tenth at most if not given."""
    queue_size: Count | None = _own()
    """Keys kept to compare with: a multiple of batch_size, and at most a quarter of the images."""
    temperature: Positive | None = _own()
    """Temperature of the loss."""
    teacher_temperature: Positive | None = _own()
    """Temperature of the key encoder's side of the loss (ReSSL)."""
    ema_momentum: Annotated[float, Field(ge=0, lt=1)] | None = _own()
    """Share of itself that the key encoder keeps in each step (BYOL: in the first step)."""
    projector_hidden_dim: Count = _own()
    """Width of the projector's hidden layer."""
    projector_dim: Count = _own()
    """Length of the projector's output."""
    projector_bn: bool = _own()
    """Batch normalisation in the projector; small queues need it."""
    predictor_hidden_dim: Count | None = _own()
    """Width of the hidden layer of the predictor behind the projector (BYOL)."""
    dense_weight: Fraction | None = _own()
    """Share of the loss for places in the loss; the rest is that for whole images (DenseCL)."""
    random_subnets: CountFromZero = 1
    """Random subnets in each step, besides the largest and the smallest."""
    largest_only_epochs: CountFromZero = 0
    """Epochs at the beginning in which the largest network trains alone."""
    loss_weights: Annotated[tuple[NotNegative, NotNegative, NotNegative], Field(strict=False)] = (
        1.0,
        1.0,
        1.0,
    )
    """Weights of the losses of the largest, of the smallest and of each random subnet."""
    distill: NotNegative = 0.0
    """Weight of the squared distance of the smaller subnets' embeddings from the key encoder's."""
    faithful: bool = False
    """Steps in the order of DATA's released code, to see what the order does (MoCo v2): they are
    slower, and were better in short trainings on digits (benchmarks/RESULTS.md)."""
    augmentation: AugmentationSettings = Field(default={}, validate_default=True)
    """How two views are made of an image."""
    device: Annotated[Literal["auto", "cpu", "cuda"], NO_EFFECT] = "auto"
    """What trains: auto is a CUDA GPU if there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the networks compute in; weights, losses and statistics stay float32."""
    accumulation: Annotated[Count, NO_EFFECT] = 1
    """Passes that each process's share of a batch is cut into, for batches that do not fit."""
    bn_group_size: Annotated[int, Field(ge=2)] | None = None
    """Images normalised together in training, whatever the number of processes and passes; null
    for all of a pass, which are batch_size / (processes · accumulation). A group holds one view of
    each image; SimCLR with null normalises both views of all its images together."""
    compile: Annotated[bool, NO_EFFECT] = False
    """Compile the largest and the smallest network (torch.compile; needs a compiler)."""
    workers: Annotated[CountFromZero, NO_EFFECT] = 2
    """Processes that load images; 0 loads them in the main process."""
    threads: Annotated[Count | None, NO_EFFECT] = None
    """Threads of torch; as many as torch chooses if null."""
    init: UserPath | None = None
    """Supernet of another run of the same space to start from (`…/supernet/model.safetensors`)."""
    knn_k: Annotated[Count, NO_EFFECT] = 200
    """Neighbours in the kNN monitor."""
    knn_every_epochs: Annotated[CountFromZero, NO_EFFECT] = 10
    """Epochs between two kNN accuracies; 0 computes none. The best mean is best.safetensors."""
    checkpoint_minutes: Annotated[Positive, NO_EFFECT] = 10.0
    """Minutes after which the state is saved within an epoch, too."""
    tensorboard: Annotated[bool, NO_EFFECT] = True
    """Write curves for TensorBoard, to supernet/tensorboard."""

    def method_options(self) -> dict[str, Any]:
        """What the method itself takes, by the names of its keyword arguments."""
        return {name: getattr(self, name) for name in RECIPES[self.method].options}

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in RECIPES:
            raise fault(f"one of {', '.join(RECIPES)} is required")
        return method

    @field_validator(*_TRAINING, mode="before")
    @classmethod
    def _as_in_the_paper(cls, value: Any, info: ValidationInfo) -> Any:
        method, epochs = info.data.get("method", "moco_v2"), info.data.get("epochs", 1)
        if value is not None:
            return value
        value = RECIPES[method].training[info.field_name or ""]
        return min(value, epochs // 10) if info.field_name == "warmup_epochs" else value

    @field_validator(*_OPTIONS, mode="before")
    @classmethod
    def _of_the_method(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        if "method" not in info.data:  # said already; which options it has is not known
            return _OPTIONS[name] if value is None else value
        method = info.data["method"]
        options = RECIPES[method].options
        if name in options:
            return options[name] if value is None else value
        if value is not None:
            raise fault(
                f"null is required, since {method} has no such option",
                remedy=f"Leave it out; on the command line, pretrain.{name}= does",
            )
        return None

    @field_validator("augmentation", mode="before")
    @classmethod
    def _views_of_the_method(cls, given: Any, info: ValidationInfo) -> Any:
        own = RECIPES[info.data.get("method", "moco_v2")].augmentation
        if not isinstance(given, dict):
            return given
        merged = {**own, **given}
        if "jitter" in own and isinstance(given.get("jitter"), dict):
            merged["jitter"] = {**own["jitter"], **given["jitter"]}
        return merged

    @field_validator("queue_size")
    @classmethod
    def _whole_batches(cls, queue_size: int | None, info: ValidationInfo) -> int | None:
        batch_size = info.data.get("batch_size")
        if queue_size is not None and batch_size is not None and queue_size % batch_size:
            required = f"a multiple of pretrain.batch_size ({batch_size}) is required"
            fitting = max(1, round(queue_size / batch_size)) * batch_size
            raise fault(required, str(queue_size), f"The nearest is {fitting}")
        return queue_size

    @field_validator("warmup_epochs", "largest_only_epochs")
    @classmethod
    def _shorter_than_training(cls, some_epochs: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs")
        if epochs is not None and some_epochs >= epochs:
            raise fault(f"fewer epochs than pretrain.epochs ({epochs}) are required")
        return some_epochs

    @field_validator("loss_weights")
    @classmethod
    def _not_all_zero(
        cls, weights: tuple[float, float, float], info: ValidationInfo
    ) -> tuple[float, float, float]:
        largest, smallest, each_random = weights
        if not (largest or smallest or (each_random and info.data.get("random_subnets") != 0)):
            raise fault("a weight above 0 is required for a network that each step trains")
        if info.data.get("largest_only_epochs") and not largest:
            raise fault("a weight above 0 of the largest is required by largest_only_epochs")
        return weights

    @field_validator("faithful")
    @classmethod
    def _order_of_moco_v2(cls, faithful: bool, info: ValidationInfo) -> bool:
        if faithful and info.data.get("method", "moco_v2") != "moco_v2":
            raise fault("false is required for any pretrain.method but moco_v2")
        weights, distill = info.data.get("loss_weights"), info.data.get("distill")
        if faithful and (weights, distill) != ((1, 1, 1), 0):
            raise fault("false is required with pretrain.distill or pretrain.loss_weights")
        return faithful
