"""The section `pretrain`; its defaults are those of MoCo v2 on ImageNet."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgesearch.config.fields import (
    Batch,
    Count,
    CountFromZero,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
    Section,
    UserPath,
    fault,
)


class JitterSection(Section):
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


class AugmentationSection(Section):
    """How two views are made of an image.

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
    jitter: JitterSection = JitterSection()
    """Random changes of colour."""
    grayscale_probability: Fraction = 0.2
    """Share of the views that lose their colour."""
    blur_probability: Fraction = 0.5
    """Share of the views that are blurred."""

    @field_validator("crop_scale")
    @classmethod
    def _rising(cls, crop_scale: tuple[float, float]) -> tuple[float, float]:
        if crop_scale[0] > crop_scale[1]:
            raise fault("the smaller share first is required")
        return crop_scale


class PretrainSection(Section):
    """How the supernet is trained without labels: MoCo v2 with the sandwich rule.

    Source: DATA (CVPR 2022), section 3; He et al., "Momentum Contrast" (CVPR 2020).
    """

    method: Literal["moco_v2"] = "moco_v2"
    """The self-supervised method."""
    epochs: Count = 200
    """Passes over the images."""
    batch_size: Batch = 256
    """Images in each step."""
    lr: Positive = 0.03
    """Learning rate at its highest; it falls to 0 as a cosine."""
    weight_decay: NotNegative = 1e-4
    """Weight decay of SGD."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    warmup_epochs: CountFromZero = 0
    """Epochs in which the learning rate rises linearly."""
    queue_size: Count = 65536
    """Keys kept as negatives: a multiple of batch_size, and at most a quarter of the images."""
    temperature: Positive = 0.2
    """Temperature of the contrastive loss."""
    ema_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Share of itself that the key encoder keeps in each step."""
    projector_hidden_dim: Count = 2048
    """Width of the projector's hidden layer."""
    projector_dim: Count = 128
    """Length of the projector's output."""
    projector_bn: bool = False
    """Batch normalisation in the projector; small queues need it."""
    random_subnets: CountFromZero = 1
    """Random subnets in each step, besides the largest and the smallest."""
    augmentation: AugmentationSection = AugmentationSection()
    """How two views are made of an image."""
    workers: CountFromZero = 2
    """Processes that load images; 0 loads them in the main process."""
    threads: Count | None = None
    """Threads of torch; as many as torch chooses if null."""
    init: UserPath | None = None
    """Supernet of another run of the same space to start from (`…/supernet/model.safetensors`)."""
    knn_k: Count = 200
    """Neighbours in the kNN monitor."""
    knn_every_epochs: CountFromZero = 10
    """Epochs between two kNN accuracies; 0 computes none."""

    @field_validator("queue_size")
    @classmethod
    def _whole_batches(cls, queue_size: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size")
        if batch_size is not None and queue_size % batch_size:
            raise fault(f"a multiple of pretrain.batch_size ({batch_size}) is required")
        return queue_size

    @field_validator("warmup_epochs")
    @classmethod
    def _shorter_than_training(cls, warmup_epochs: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs")
        if epochs is not None and warmup_epochs >= epochs:
            raise fault(f"fewer epochs than pretrain.epochs ({epochs}) are required")
        return warmup_epochs
