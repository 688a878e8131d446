"""A first configuration for images, device and weights at hand: one rule for each value.

The rules are here and nowhere else; each gives a value and the reason that stands behind it in the
file. `edgesearch.stages.init` finds the facts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from devices.values import in_double_quotes, in_yaml

SMALL_PIXELS = 40
"""Images with a shorter short side are for spaces without a stem that shrinks them."""
RESOLUTIONS = (96, 128, 160, 192, 224)
"""Of the spaces for photographs (mobile_small: the first three)."""
ON_A_PROCESSOR = 128
"""Highest resolution for which a processor trains in hours, in pixels."""
OF_PLACES = 192
"""The same where objects or places are to be found, which need more pixels."""
WIDEST = 1.5
"""Most by which the largest network may exceed a budget, if a smaller resolution comes closer."""
VIEWS = 200_000
"""Images seen in a training from random weights, over all epochs."""
FEW_IMAGES = 500
"""Training on fewer images learns hardly anything from nothing."""
LARGEST_QUEUE = 4096
NEIGHBOURS = 20
"""Neighbours of kNN: fewer than the images of most classes."""
LONG_SIDE = 2.0
"""Ratio of sides above which images are not stretched to squares."""
FEWEST_TO_HOLD_OUT = 10
"""Training images of the smallest class with which an epoch can be chosen on a tenth."""
WIDTH = 32
"""Column of the comments."""


@dataclass(frozen=True)
class Recipe:
    """How a task is fine-tuned from public weights; twice as long without.

    Attributes:
        words: What is learnt.
        head: Name of the head, and why.
        steps: Steps of training.
        batch: Largest batch.
    """

    words: str
    head: tuple[str, str]
    steps: int
    batch: int


RECIPES = {
    "classification": Recipe(
        "the class of an image", ("linear", "on the average of the last stage"), 400, 64
    ),
    "detection": Recipe(
        "boxes of objects", ("ssdlite", "small; or retinanet, larger and slower"), 800, 16
    ),
    "segmentation": Recipe(
        "a class for each pixel",
        ("lraspp", "small; or fcn, deeplabv3, larger and slower"),
        1000,
        16,
    ),
}
"""Those of configs/classify.yaml, detect.yaml and segment.yaml, for any number of images."""
EPOCHS = (10, 60)
"""Fewest and most epochs of fine-tuning from public weights."""


@dataclass(frozen=True)
class Facts:
    """What there is to start from.

    Attributes:
        source: Kind of source, as `data.source`.
        root: Its path.
        train: Number of training images.
        classes: Number of classes of whole images; 0 without.
        smallest_class: Training images of the smallest class.
        side: Short side in pixels that half of a sample's images have or exceed; None if unknown.
        one_size: Whether the images of the sample have one size.
        colour: Whether any of them is in colour; None if unknown.
        ratio: Long side as a multiple of the short side, the median of the sample.
        labels: Where labels stand, as `data.labels`.
        labels_words: What they are.
        objects: Number of classes of boxes or pixels; 0 without.
        device: Name of the device.
        host: Its name for ssh; None for this machine.
        gpu: Whether a GPU trains here.
        weights: Name of installed public weights, as `pretrain.init`; None without.
        largest_ms: Measured latency of the largest network of a resolution, in pixels; empty if
            nothing was measured.
    """

    source: str
    root: str
    train: int
    classes: int
    smallest_class: int
    side: int | None
    one_size: bool
    colour: bool | None
    ratio: float = 1.0
    labels: str = "folders"
    labels_words: str = "class folders"
    objects: int = 0
    device: str = "local-cpu"
    host: str | None = None
    gpu: bool = False
    weights: str | None = None
    largest_ms: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Wishes:
    """What the user wants; at most one of the two budgets.

    Attributes:
        share: Latency as a share of the largest network's.
        task: What the winners are fine-tuned for; None for nothing.
    """

    latency_ms: float | None = None
    share: float | None = None
    task: str | None = None
    output_dir: str = "runs/first"


@dataclass(frozen=True)
class Line:
    """A value of the configuration, and why it was chosen."""

    key: str
    value: Any
    why: str


def choose(facts: Facts, wishes: Wishes) -> list[Line]:
    """The values of a configuration, in its order."""
    return [
        Line("output_dir", wishes.output_dir, "everything that comes of it"),
        Line("seed", 0, "of all that is random"),
        *_space(facts, wishes),
        Line("device.name", facts.device, "`edgesearch devices` lists others"),
        *([Line("device.host", facts.host, "its name for ssh")] if facts.host else ()),
        *_data(facts, wishes),
        *_training(facts),
        *_search(facts, wishes),
        *_task(facts, wishes),
        *_evaluation(facts),
    ]


def space_of(facts: Facts) -> str:
    """Name of the space."""
    if facts.side is not None and facts.side <= SMALL_PIXELS:
        return "resnet_small"
    return "mobile_lite0" if facts.weights else "mobile_small"


def _on_a_processor(facts: Facts) -> int:
    return OF_PLACES if facts.objects else ON_A_PROCESSOR


def starts_from_weights(facts: Facts) -> bool:
    """Whether the installed public weights are a start for these images."""
    return facts.weights is not None and space_of(facts) == "mobile_lite0"


def resolutions_of(facts: Facts) -> list[int]:
    """Resolutions of the space that these images fill and this machine can train, in pixels."""
    if space_of(facts) == "resnet_small":
        return [32]
    most = RESOLUTIONS[-1] if facts.gpu or facts.weights else _on_a_processor(facts)
    offered = RESOLUTIONS if facts.weights else RESOLUTIONS[:3]
    filled = min(most, facts.side or most)
    return [each for each in offered if each <= filled] or [RESOLUTIONS[0]]


def usual_resolution(facts: Facts) -> int:
    """The resolution without a budget in milliseconds."""
    most = RESOLUTIONS[-1] if facts.gpu else max(RESOLUTIONS[0], _on_a_processor(facts))
    return [each for each in resolutions_of(facts) if each <= most][-1]


def _resolution(facts: Facts, wishes: Wishes) -> tuple[int, str]:
    """The resolution, by the budget where latencies are known; and why."""
    usual, budget_ms = usual_resolution(facts), wishes.latency_ms
    half = "the images have" if facts.one_size else "half of the images have"
    side = f"{half} {facts.side} pixels or more" if facts.side else "usual"
    if facts.side and facts.side < usual:
        side = f"the lowest; {half} {facts.side} pixels" + ("" if facts.one_size else " or more")
    if budget_ms is None or not facts.largest_ms:
        return usual, side
    measured, largest_ms = facts.largest_ms[-1]
    # Latency grows with the number of pixels; `plan` measures what comes of it.
    expected_ms = {each: largest_ms * (each / measured) ** 2 for each in resolutions_of(facts)}
    reaching = [each for each, ms in expected_ms.items() if ms >= budget_ms]
    if not reaching:
        chosen = max(expected_ms)
        return chosen, f"the highest here: its largest network takes {expected_ms[chosen]:.3g} ms"
    chosen = min(reaching)
    if usual in reaching and expected_ms[usual] <= WIDEST * budget_ms:
        chosen = usual
    text = f"its largest network takes about {expected_ms[chosen]:.3g} ms, more than the budget"
    return chosen, text


def _space(facts: Facts, wishes: Wishes) -> Iterator[Line]:
    name = space_of(facts)
    why = {
        "resnet_small": f"for images of about 32 pixels; these have {facts.side}",
        "mobile_lite0": f"subnets of {facts.weights}, whose weights are installed",
        "mobile_small": "small mobile networks, 10 to 76 M multiply-accumulates",
    }[name]
    yield Line("space.name", name, why)
    resolution, because = _resolution(facts, wishes)
    if name != "resnet_small":
        yield Line("space.resolutions", [resolution], because)
    if facts.colour is False and not starts_from_weights(facts):
        yield Line("space.in_channels", 1, "the images are grey")


def _data(facts: Facts, wishes: Wishes) -> Iterator[Line]:
    kind = {"folder": "a folder of files", "shards": "tar files, read in place"}[facts.source]
    yield Line("data.source", facts.source, kind)
    if facts.objects:
        yield Line("data.root", facts.root, f"{facts.train:,} training images")
        yield Line("data.labels", facts.labels, f"{facts.labels_words}, {_classes(facts.objects)}")
        return
    why = f"{facts.classes} classes: they serve accuracies only"
    if not facts.classes:
        why = "no classes of whole images: no accuracies"
    elif wishes.task is not None:
        why = f"{facts.classes} classes"
    yield Line("data.root", facts.root, why)
    if facts.labels != "folders":
        yield Line("data.labels", facts.labels, facts.labels_words)


def _training(facts: Facts) -> Iterator[Line]:
    if starts_from_weights(facts):
        yield Line(
            "pretrain.init", facts.weights, "public weights (ImageNet), of an installed package"
        )
        yield Line(
            "pretrain.epochs",
            0,
            "no training: recalibrated on your images; see the end of this file",
        )
        return
    batch = batch_size(facts.train, facts.gpu)
    epochs = min(200, max(20, round(VIEWS / facts.train)))
    queue = min(LARGEST_QUEUE, max(batch, facts.train // 4 // batch * batch))
    yield Line("pretrain.method", "moco_v2", "self-supervised: needs no labels")
    yield Line("pretrain.epochs", epochs, f"{VIEWS:,} images seen, but 20 to 200 epochs")
    yield Line("pretrain.batch_size", batch, f"at least 16 steps an epoch ({facts.train:,} images)")
    yield Line(
        "pretrain.lr", round(0.06 * batch / 256, 5), "0.06 for a batch of 256, in proportion"
    )
    yield Line("pretrain.weight_decay", 1e-4, "of the paper")
    yield Line(
        "pretrain.warmup_epochs", min(5, epochs // 10), "three subnets share the first steps"
    )
    yield Line("pretrain.queue_size", queue, "a quarter of the images, at most 4096")
    yield Line("pretrain.ema_momentum", 0.99, "for few steps; the paper's 0.999 is for ImageNet")
    yield Line("pretrain.projector_hidden_dim", 512, "the paper's 2048, in proportion to features")
    yield Line("pretrain.projector_bn", True, "a small queue needs it")
    if facts.classes:
        yield Line("pretrain.knn_k", _neighbours(facts), "of the accuracy that is watched")
    if facts.one_size and facts.side is not None and facts.side <= SMALL_PIXELS:
        yield Line("pretrain.augmentation.batched", True, "small images of one size: far faster")
        yield Line(
            "pretrain.augmentation.blur_probability", 0, "images this small are blurred as they are"
        )
    yield Line(
        "pretrain.augmentation.flip_probability", 0.5, "0 if left and right differ (digits, text)"
    )


def batch_size(images: int, gpu: bool) -> int:
    """A power of two with at least 16 steps an epoch: 128 at most, 256 on a GPU; at least 2."""
    most = 256 if gpu else 128
    return max(2, min(most, 1 << max(1, (images // 16).bit_length() - 1)))


def _search(facts: Facts, wishes: Wishes) -> Iterator[Line]:
    if facts.objects:
        yield Line("search.task", wishes.task, "compares places of images, not whole images")
    if starts_from_weights(facts) and not facts.gpu:
        yield Line("search.evaluations", 64, "candidates that are scored; more are better: 200")
        yield Line("search.images", 256, "most for a score; a processor takes long for more")
        yield Line("search.calibration_images", 512, "for the statistics of each candidate")
    else:
        yield Line("search.evaluations", 200, "candidates that are scored")
    if wishes.latency_ms is not None:
        why = f"milliseconds on {facts.device}, the median"
        yield Line("search.budgets.latency_ms", wishes.latency_ms, why)
    else:
        share = 0.5 if wishes.share is None else wishes.share
        why = "share of the largest network's latency; or latency_ms: 5"
        yield Line("search.budgets.latency_of_largest", share, why)


def _task(facts: Facts, wishes: Wishes) -> Iterator[Line]:
    if wishes.task is None:
        return
    recipe = RECIPES[wishes.task]
    batch = min(recipe.batch, batch_size(2 * facts.train, gpu=False))
    times = 1 if starts_from_weights(facts) else 2
    fewest, most = (each * times for each in EPOCHS)
    steps = recipe.steps * times
    epochs = min(most, max(fewest, round(steps * batch / facts.train)))
    start = "public weights" if times == 1 else "what the images alone taught"
    yield Line("finetune.task", wishes.task, f"the winners learn {recipe.words}")
    yield Line("finetune.head", *recipe.head)
    why = f"about {steps:,} steps from {start}, but {fewest} to {most} epochs"
    yield Line("finetune.epochs", epochs, why)
    yield Line(
        "finetune.batch_size", batch, f"at most {recipe.batch}, with 8 steps an epoch or more"
    )
    if wishes.task == "classification":
        if facts.smallest_class >= FEWEST_TO_HOLD_OUT:
            why = "of the training images; the best epoch on them is kept"
            yield Line("finetune.validation", 0.1, why)
    elif facts.ratio > LONG_SIDE:
        why = f"sides differ {facts.ratio:.2g} times: borders instead of stretching"
        yield Line("finetune.fit", "letterbox", why)
    else:
        yield Line(
            "finetune.fit", "stretch", "whole images as squares; letterbox keeps their ratio"
        )
    why = "0 if left and right differ (digits, text)"
    yield Line("finetune.augmentation.flip_probability", 0.5, why)
    why = "0.5 if no side is up (microscope, aerial)"
    yield Line("finetune.augmentation.vertical_flip_probability", 0, why)


def _classes(count: int) -> str:
    return f"{count} class" if count == 1 else f"{count} classes"


def _evaluation(facts: Facts) -> Iterator[Line]:
    if facts.classes:
        text = f"the smallest class has {facts.smallest_class:,} training images"
        yield Line("evaluation.knn_k", _neighbours(facts), text)


def _neighbours(facts: Facts) -> int:
    return max(1, min(NEIGHBOURS, facts.smallest_class))


def write_yaml(lines: Sequence[Line], head: Sequence[str], foot: Sequence[str] = ()) -> str:
    """The configuration as YAML: each value in its section, with its reason as a comment."""
    header = [f"# {line}".rstrip() for line in head]
    text = list(header)
    open_sections: list[str] = []
    for line in lines:
        *sections, key = line.key.split(".")
        shared = 0
        while sections[shared : shared + 1] == open_sections[shared : shared + 1] != []:
            shared += 1
        if text[-1:] != [""] and (shared == 0 and (sections or open_sections) or text == header):
            text.append("")
        for depth, section in enumerate(sections[shared:], shared):
            text.append(f"{'  ' * depth}{section}:")
        open_sections = sections
        value = f"{'  ' * len(sections)}{key}: {_value(line.value)}"
        text.append(f"{value:<{WIDTH}}  # {line.why}")
    text += ["", *(f"# {line}".rstrip() for line in foot)] if foot else []
    return "\n".join(text) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, str):
        is_plain = re.fullmatch(r"[\w./][\w./-]*", value, re.ASCII)
        return value if is_plain and yaml.safe_load(value) == value else in_double_quotes(value)
    return in_yaml(value)
