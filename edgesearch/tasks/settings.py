"""The configuration section `finetune`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgesearch.settings import (
    NO_EFFECT,
    AppliesTo,
    Batch,
    Count,
    CountFromZero,
    CropScale,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Settings,
    fault,
)
from edgesearch.tasks.known_tasks import TASKS

_OWN = ("head", *dict.fromkeys(name for record in TASKS.values() for name in record.training))
"""Options whose default depends on the task."""

WITH_TASK = AppliesTo("finetune.task is given", lambda config: config.finetune.task is not None)
WITH_VALIDATION = AppliesTo(
    "finetune.validation is above 0", lambda config: config.finetune.validation > 0
)
OF_SGD = AppliesTo("finetune.optimizer is sgd", lambda config: config.finetune.optimizer == "sgd")
CLASSIFIES = AppliesTo(
    "finetune.task is classification", lambda config: config.finetune.task == "classification"
)
NO_PROBE = AppliesTo("finetune.probe is false", lambda config: not config.finetune.probe)


def _own() -> Any:
    """A field that defaults to the task's value."""
    return Field(default=None, validate_default=True)


class FinetuneAugmentationSettings(Settings):
    """Random changes of training images, with their boxes and label maps."""

    crop_scale: CropScale = (0.35, 1.0)
    """Smallest and largest area of a crop, as shares of the image's area."""
    flip_probability: Fraction = 0.5
    """Share of images that are mirrored; 0 if left and right differ (digits, text)."""
    vertical_flip_probability: Fraction = 0.0
    """Share of images that are turned upside down; 0.5 if no side is up (microscope, aerial)."""
    brightness: Fraction = 0.2
    """Strength of the change in brightness."""
    contrast: Fraction = 0.2
    """Strength of the change in contrast."""
    saturation: Fraction = 0.2
    """Strength of the change in saturation."""


class FinetuneSettings(Settings):
    """Training with labels: a head on subnets of the supernet.

    Null means the task's own value for `head`, `epochs`, `batch_size`, `lr` and `fit`.
    """

    task: str | None = None
    """What the network shall do; null for no fine-tuning."""
    start: Annotated[list[str], Field(min_length=1)] = ["winners"]
    """What is fine-tuned: winners, largest, smallest, or architectures by name."""
    weights: Literal["supernet", "random"] = "supernet"
    """Initial weights of the backbone: those of the supernet, recalibrated, or random ones."""
    head: str = _own()
    """The head."""
    classes: Annotated[Count | None, NO_EFFECT] = None
    """Number of classes, for latencies where there are no images; that of the images if null."""
    probe: bool = False
    """Train the head only, on the frozen backbone (a linear probe in classification)."""
    fit: Literal["crop", "stretch", "letterbox"] = _own()
    """How images become squares: their centre; all of it, without keeping the ratio; or all of it,
    with borders."""
    label_share: PositiveFraction = 1.0
    """Share of the training images with labels that are used, drawn for each class."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of these that is held out; the epoch that is best on it is kept, not the last."""
    patience: Annotated[Count | None, WITH_VALIDATION] = None
    """Epochs without a better one after which a training ends early; null for never."""
    epochs: Count = _own()
    """Passes over the training images."""
    batch_size: Batch = _own()
    """Images per step, over all processes."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The optimizer."""
    lr: Positive = _own()
    """Peak learning rate of the head, followed by cosine decay to 0."""
    backbone_lr: Annotated[PositiveFraction, NO_PROBE] = 1.0
    """Learning rate of the backbone's last stage, as a share of `lr`."""
    lr_decay: Annotated[PositiveFraction, NO_PROBE] = 1.0
    """Learning rate of each stage, as a share of that of the following stage."""
    weight_decay: NotNegative = 0.02
    """Weight decay of weights; normalisations and biases have none."""
    momentum: Annotated[float, Field(ge=0, lt=1), OF_SGD] = 0.9
    """Momentum of SGD."""
    warmup_steps: CountFromZero = 20
    """Steps of linear warm-up; at most a tenth of all."""
    clip_gradient: Positive | None = 5.0
    """Largest norm of the gradient of a step; null for no limit."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Momentum, per step, of a moving average of the weights, which is kept instead of them; it
    begins lower, so that short trainings are not held back."""
    norms: Annotated[Literal["train", "frozen"], NO_PROBE] = "train"
    """Statistics of the backbone's normalisations: of each batch, or those that it began with."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1), CLASSIFIES] = 0.1
    """Share of each label that is spread over all classes."""
    distill: NotNegative = 0.0
    """Weight of imitating the largest subnet, which is fine-tuned first."""
    augmentation: FinetuneAugmentationSettings = FinetuneAugmentationSettings()
    """Random changes of training images."""
    device: Annotated[Literal["auto", "cpu", "cuda"], NO_EFFECT] = "auto"
    """Training device; auto is a CUDA GPU if there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the networks in training; weights and losses stay float32."""
    workers: Annotated[CountFromZero, NO_EFFECT] = 0
    """Processes that load and change images; 0 does so in the main process."""
    threads: Annotated[Count | None, NO_EFFECT] = None
    """Threads of torch; torch's choice if null."""
    checkpoint_minutes: Annotated[Positive, NO_EFFECT] = 5.0
    """Minutes between saved states within an epoch."""
    tensorboard: Annotated[bool, NO_EFFECT] = True
    """Write TensorBoard curves."""

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str | None) -> str | None:
        if task is not None and task not in TASKS:
            raise fault(f"one of {', '.join(TASKS)} is required")
        return task

    @field_validator(*_OWN, mode="before")
    @classmethod
    def _of_the_task(cls, value: Any, info: ValidationInfo) -> Any:
        record = TASKS.get(info.data.get("task") or "", next(iter(TASKS.values())))
        if value is not None:
            return value
        if info.field_name == "head":
            return next(iter(record.heads))
        return record.training[info.field_name or ""]

    @field_validator("fit")
    @classmethod
    def _nothing_cut_off(cls, fit: str, info: ValidationInfo) -> str:
        task = info.data.get("task")
        if fit == "crop" and task is not None and TASKS[task].annotations is not None:
            raise fault(f"stretch or letterbox is required for {task}: crop cuts objects off")
        return fit

    @field_validator("distill")
    @classmethod
    def _outputs_to_imitate(cls, distill: float, info: ValidationInfo) -> float:
        if distill and info.data.get("task") == "detection":
            raise fault("0 is required for detection")
        return distill

    @field_validator("head")
    @classmethod
    def _known_head(cls, head: str, info: ValidationInfo) -> str:
        task = info.data.get("task")
        if task is not None and head not in TASKS[task].heads:
            heads = ", ".join(TASKS[task].heads)
            raise fault(f"a head for {task} is required: one of {heads}")
        return head
