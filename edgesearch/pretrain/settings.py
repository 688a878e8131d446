"""The configuration section `pretrain`; defaults are the method's paper's for ImageNet."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from edgesearch.errors import UserNotice
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.settings import (
    AUTO,
    IN_COLOUR,
    NO_EFFECT,
    TRAINED,
    AppliesTo,
    Batch,
    Count,
    CountFromZero,
    CropScale,
    Fraction,
    NotNegative,
    Positive,
    Settings,
    UserPath,
    fault,
)
from edgesearch.teacher.settings import TeacherSettings

_TRAINING = RECIPES["moco_v2"].training
_OPTIONS = {
    name: value
    for defaults in reversed(RECIPES.values())
    for name, value in defaults.options.items()
}


JITTERED = AppliesTo(
    "pretrain.augmentation.jitter.probability is above 0",
    lambda config: config.pretrain.augmentation.jitter.probability > 0,
)
IN_GREY = AppliesTo(
    "the space has one channel (space.in_channels)",
    lambda config: config.space.build().in_channels == 1,
)
NOT_BATCHED = AppliesTo(
    "pretrain.augmentation.batched is false",
    lambda config: not config.pretrain.augmentation.batched,
)
MONITORED = AppliesTo(
    "pretrain.knn_every_epochs is above 0", lambda config: config.pretrain.knn_every_epochs > 0
)
WITH_RANDOM = AppliesTo(
    "pretrain.random_subnets is above 0", lambda config: config.pretrain.random_subnets > 0, item=2
)
RANDOM_WEIGHED = AppliesTo(
    "pretrain.loss_weights[2] is above 0", lambda config: config.pretrain.loss_weights[2] > 0
)
SMALLER_TRAINED = AppliesTo(
    "the smallest or random subnets are trained (pretrain.loss_weights, random_subnets)",
    lambda config: _trains_smaller(config.pretrain),
)
WITH_HIDDEN = AppliesTo(
    "pretrain.projector_hidden_dim is given",
    lambda config: config.pretrain.projector_hidden_dim is not None,
)
SECOND_LESSON = AppliesTo(
    "pretrain.teacher is given and pretrain.method is not distillation",
    lambda config: config.pretrain.teacher and not RECIPES[config.pretrain.method].taught,
)
WITH_INIT = AppliesTo("pretrain.init is given", lambda config: config.pretrain.init is not None)
OF_SGD = AppliesTo(
    "pretrain.optimizer is sgd or lars", lambda config: config.pretrain.optimizer != "adamw"
)


def _check_queue(name: str, queue_size: int, batch_size: int) -> None:
    """Refuse a queue that does not hold a whole number of batches."""
    if queue_size % batch_size:
        required = f"a multiple of pretrain.batch_size ({batch_size}) is required"
        fitting = max(1, round(queue_size / batch_size)) * batch_size
        found = f"{name} {queue_size}" if name else str(queue_size)
        raise fault(required, found, f"The nearest is {fitting}")


def _trains_smaller(pretrain: Any) -> bool:
    _, smallest, each_random = pretrain.loss_weights
    return bool(smallest or (each_random and pretrain.random_subnets))


def _changes_colours(config: Any) -> bool:
    jitter, grey = config.pretrain.augmentation.jitter, (config.space.build().in_channels != 3)
    strengths = (jitter.brightness, jitter.contrast)
    return any(strengths if grey else (*strengths, jitter.saturation, jitter.hue))


class JitterSettings(Settings):
    """Random colour changes; each strength is the range around no change."""

    brightness: Annotated[NotNegative, JITTERED] = 0.4
    """Strength of the change in brightness."""
    contrast: Annotated[NotNegative, JITTERED] = 0.4
    """Strength of the change in contrast."""
    saturation: Annotated[NotNegative, JITTERED, IN_COLOUR] = 0.4
    """Strength of the change in saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5), JITTERED, IN_COLOUR] = 0.1
    """Strength of the change in hue, as a share of the colour circle."""
    probability: Annotated[
        Fraction,
        AppliesTo("one of the strengths beside it that apply is above 0", _changes_colours),
    ] = 0.8
    """Share of views that are changed."""


class AugmentationSettings(Settings):
    """Augmentation of the two views of an image; methods may change it.

    Source: Chen et al., "Improved Baselines with Momentum Contrastive Learning" (2020).
    """

    batched: bool = False
    """Augment whole batches at once: many times faster for small images of equal size."""
    crop_scale: CropScale = (0.2, 1.0)
    """Smallest and largest area of a crop, as shares of the image's area."""
    flip_probability: Fraction = 0.5
    """Share of views that are mirrored; 0 if left and right differ (digits, text)."""
    jitter: JitterSettings = JitterSettings()
    """Random changes of colour."""
    grayscale_probability: Annotated[Fraction, IN_COLOUR] = 0.2
    """Share of views converted to greyscale."""
    blur_probability: Fraction = 0.5
    """Share of views that are blurred."""
    solarize_probability: Fraction = 0.0
    """Share of views whose bright pixels are inverted (BYOL: of the second views)."""


def _own() -> Any:
    """A field that defaults to the method's value."""
    return Field(default=None, validate_default=True)


class PretrainSettings(Settings):
    """Self-supervised training of the supernet by the sandwich rule.

    Missing options are as in the method's paper; null means the same for the method's own options,
    optimizer, lr, weight_decay and warmup_epochs. Options that the method lacks are refused.

    Source: DATA (CVPR 2022), section 3; the papers in the files of `edgesearch.pretrain`.
    """

    method: Annotated[
        str, Field(description=f"The self-supervised method: one of {', '.join(RECIPES)}.")
    ] = "moco_v2"
    epochs: CountFromZero = 200
    """Passes over the images; 0 uses the weights of `init` as they are."""
    extend: bool = False
    """Continue the finished training of fewer epochs in output_dir, or the longest that was set
    aside there, instead of starting over. From there on the learning rate is that of the schedule
    over all epochs: it has fallen to 0 and jumps up, so the result differs from that of a training
    of all epochs."""
    batch_size: Annotated[Batch, TRAINED] = 256
    """Images per step, over all processes."""
    optimizer: Annotated[Literal["sgd", "adamw", "lars"], TRAINED] = _own()
    """SGD, AdamW (distillation), or LARS with a learning rate for each layer (BYOL, SimCLR)."""
    lr: Annotated[Positive, TRAINED] = _own()
    """Peak learning rate, followed by cosine decay to 0."""
    weight_decay: Annotated[NotNegative, TRAINED] = _own()
    """Weight decay of the optimizer."""
    momentum: Annotated[float, Field(ge=0, lt=1), TRAINED, OF_SGD] = 0.9
    """Momentum of the optimizer."""
    warmup_epochs: Annotated[CountFromZero, TRAINED] = _own()
    """Epochs of linear warm-up; by default, and where more than all epochs are given, at most a
    tenth of the epochs."""
    clip_gradient: Annotated[Positive | None, TRAINED] = _own()
    """Largest norm of the gradient of a step; null for no limit."""
    queue_size: Annotated[Count | None, TRAINED] = _own()
    """Keys in the queue: a multiple of batch_size, and at most a quarter of the images."""
    temperature: Annotated[Positive | None, TRAINED] = _own()
    """Temperature of the loss."""
    teacher_temperature: Annotated[Positive | None, TRAINED] = _own()
    """Temperature of the key encoder in the loss (ReSSL)."""
    ema_momentum: Annotated[Annotated[float, Field(ge=0, lt=1)] | None, TRAINED] = _own()
    """Momentum of the key encoder's moving average per step (BYOL: in the first step)."""
    projector_hidden_dim: Count | None = _own()
    """Width of the projector's hidden layer; null for a single layer (distillation)."""
    projector_dim: Count | None = _own()
    """Length of an embedding (distillation: that of the teacher)."""
    projector_bn: Annotated[bool, WITH_HIDDEN] = _own()
    """Batch normalisation in the projector; small queues need it."""
    predictor_hidden_dim: Annotated[Count | None, TRAINED] = _own()
    """Width of the predictor's hidden layer (BYOL)."""
    dense_weight: Annotated[Fraction | None, TRAINED] = _own()
    """Weight of the dense loss; the rest is that of the loss for whole images (DenseCL)."""
    teacher: TeacherSettings | None = Field(default=None, validate_default=True)
    """The teacher: distillation learns from it alone, other methods besides. `init` for the public
    weights of `pretrain.init`."""
    teacher_weight: Annotated[Positive, TRAINED, SECOND_LESSON] = 1.0
    """Weight of the teacher's loss, which is added to the method's own."""
    random_subnets: Annotated[CountFromZero, TRAINED, RANDOM_WEIGHED] = 1
    """Random subnets per step, besides the largest and the smallest."""
    largest_only_epochs: Annotated[CountFromZero, TRAINED] = 0
    """Initial epochs that train the largest network only."""
    loss_weights: Annotated[
        tuple[NotNegative, NotNegative, NotNegative], Field(strict=False), TRAINED, WITH_RANDOM
    ] = (
        1.0,
        1.0,
        1.0,
    )
    """Loss weights of the largest, the smallest and each random subnet."""
    distill: Annotated[NotNegative, TRAINED, SMALLER_TRAINED] = 0.0
    """Weight of the squared distance between embeddings of smaller subnets and the key encoder."""
    faithful: Annotated[bool, TRAINED] = False
    """Order of operations of DATA's released code, for ablation (MoCo v2): slower, and better in
    short trainings on digits (benchmarks/RESULTS.md)."""
    augmentation: Annotated[AugmentationSettings, TRAINED] = Field(
        default={}, validate_default=True
    )
    """Augmentation of the two views of an image."""
    device: Annotated[Literal["auto", "cpu", "cuda"], NO_EFFECT] = "auto"
    """Training device; auto is a CUDA GPU if there is one."""
    precision: Annotated[Literal["auto", "fp32", "bf16"], TRAINED] = AUTO
    """Precision of the networks; weights, losses and statistics stay float32. auto is bf16 where
    processor or GPU have instructions for it and a timed step is faster. What was chosen is kept
    when a training goes on."""
    memory_format: Annotated[Literal["auto", "channels_last", "channels_first"], TRAINED] = AUTO
    """Order of images and convolutions in memory, which changes the last digits; auto is the faster
    one in a timed step. What was chosen is kept when a training goes on."""
    accumulation: Annotated[Count, NO_EFFECT, TRAINED] = 1
    """Forward passes into which each process's share of a batch is split to save memory."""
    bn_group_size: Annotated[Annotated[int, Field(ge=2)] | None, TRAINED] = None
    """Images normalised together in training, for any number of processes and passes; null for all
    in a pass, batch_size / (processes · accumulation). A group holds one view of each image; SimCLR
    with null normalises both views of all its images together."""
    compile: Annotated[bool, NO_EFFECT, TRAINED] = False
    """Compile the largest and the smallest network with torch.compile (needs a compiler)."""
    workers: Annotated[CountFromZero, NO_EFFECT, TRAINED, NOT_BATCHED] = 2
    """Processes that load images; 0 loads them in the main process."""
    threads: Annotated[Count | None, NO_EFFECT] = None
    """Threads of torch; torch's choice if null."""
    init: UserPath | None = Field(default=None, validate_default=True)
    """Initial weights: another run of this space (its folder), or public weights, which become a
    part of the largest network: a file (.pth, .safetensors), or efficientnet-lite0, -lite1, -lite2
    or mobilenet_v2 from an installed package."""
    init_licence: Annotated[str | None, NO_EFFECT, WITH_INIT] = None
    """Licence of public weights in `init`; stands in each winner's manifest."""
    init_grey: Annotated[bool, WITH_INIT, IN_GREY] = False
    """Sum the first convolution of public weights in `init` over red, green and blue, for grey
    images."""
    knn_k: Annotated[Count, NO_EFFECT, TRAINED, MONITORED] = 200
    """Neighbours in the kNN monitor."""
    knn_every_epochs: Annotated[CountFromZero, NO_EFFECT, TRAINED] = 10
    """Epochs between kNN evaluations, 0 for none; the best mean is best.safetensors."""
    checkpoint_minutes: Annotated[Positive, NO_EFFECT, TRAINED] = 10.0
    """Minutes between saved states within an epoch."""
    tensorboard: Annotated[bool, NO_EFFECT] = True
    """Write TensorBoard curves to supernet/tensorboard."""

    @property
    def wants_maps(self) -> bool:
        """Whether subnets learn the maps of a teacher, if it has any."""
        teacher = self.teacher
        if teacher is None or teacher.loss != "cosine":
            return False
        return RECIPES[self.method].dense if teacher.dense is None else teacher.dense

    def method_options(self) -> dict[str, Any]:
        """Keyword arguments of the method's class."""
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
        if "method" not in info.data:  # reported already; its options are unknown
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

    @field_validator("teacher", mode="before")
    @classmethod
    def _public_weights_as_teacher(cls, teacher: Any) -> Any:
        return {"init": True} if teacher == "init" else teacher

    @field_validator("teacher")
    @classmethod
    def _taught(cls, teacher: TeacherSettings | None, info: ValidationInfo) -> Any:
        method = info.data.get("method")
        if method is None:  # reported already
            return teacher
        if teacher is None and RECIPES[method].taught:
            raise fault(
                f"a teacher is required by {method}",
                remedy="Set pretrain.teacher, such as {onnx: teacher.onnx}",
            )
        batch_size = info.data.get("batch_size")
        if teacher is not None and batch_size and teacher.loss == "queue":
            _check_queue("pretrain.teacher.queue_size", teacher.queue_size, batch_size)
        return teacher

    @field_validator("augmentation", mode="wrap")
    @classmethod
    def _views_of_the_method(
        cls, given: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        own = RECIPES[info.data.get("method", "moco_v2")].augmentation
        if not isinstance(given, dict):
            return check(given)
        merged = {**own, **given}
        if "jitter" in own and isinstance(given.get("jitter"), dict):
            merged["jitter"] = {**own["jitter"], **given["jitter"]}
        views = check(merged)
        # Only what the user gave counts as given (`without_effect`).
        jitter = given.get("jitter", {})
        named = set(jitter) if isinstance(jitter, dict) else jitter.model_fields_set
        fields = {
            **dict(views),
            "jitter": JitterSettings.model_construct(named, **dict(views.jitter)),
        }
        return AugmentationSettings.model_construct(set(given), **fields)

    @field_validator("queue_size")
    @classmethod
    def _whole_batches(cls, queue_size: int | None, info: ValidationInfo) -> int | None:
        batch_size = info.data.get("batch_size")
        if queue_size is not None and batch_size is not None:
            _check_queue("", queue_size, batch_size)
        return queue_size

    @field_validator("warmup_epochs")
    @classmethod
    def _short_warmup(cls, warmup: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs")
        if not epochs or warmup < epochs:
            return warmup
        shortened = epochs // 10
        text = (
            f"pretrain.warmup_epochs is shortened from {warmup} to {shortened}, since pretrain."
            f"epochs is {epochs}"
        )
        warnings.warn(text, UserNotice, stacklevel=2)
        return shortened

    @field_validator("largest_only_epochs")
    @classmethod
    def _shorter_than_training(cls, some_epochs: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs")
        if epochs and some_epochs >= epochs:
            raise fault(
                f"fewer epochs than pretrain.epochs ({epochs}) are required",
                remedy="0 trains smaller subnets from the start",
            )
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

    @field_validator("init")
    @classmethod
    def _weights_without_training(cls, init: Path | None, info: ValidationInfo) -> Path | None:
        if init is None and info.data.get("epochs") == 0:
            raise fault(
                "weights are required, since pretrain.epochs is 0", remedy="Or set pretrain.epochs"
            )
        return init

    @field_validator("faithful")
    @classmethod
    def _order_of_moco_v2(cls, faithful: bool, info: ValidationInfo) -> bool:
        if faithful and info.data.get("method", "moco_v2") != "moco_v2":
            raise fault("false is required for any pretrain.method but moco_v2")
        weights, distill = info.data.get("loss_weights"), info.data.get("distill")
        if faithful and (weights, distill) != ((1, 1, 1), 0):
            raise fault("false is required with pretrain.distill or pretrain.loss_weights")
        if faithful and info.data.get("teacher") is not None:
            raise fault("false is required with pretrain.teacher")
        if faithful and info.data.get("clip_gradient") is not None:
            raise fault("false is required with pretrain.clip_gradient")
        return faithful
