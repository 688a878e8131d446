"""Reads fine-tuned networks: their figures, and what they say of held-out images."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from edgesearch.data.image_set import ImageSet
from edgesearch.data.label_maps import IGNORED
from edgesearch.errors import UserError
from edgesearch.inputs import read_json
from edgesearch.report.task_facts import LIKELY, Box, Confusion, Example, TaskFacts, TaskNetwork
from edgesearch.run.context import RunContext
from edgesearch.tasks.detection import Detections, FramedBoxes
from edgesearch.tasks.finetuner import outputs_in_batches
from edgesearch.tasks.finetuning import Finetuning
from edgesearch.tasks.known_tasks import TASKS
from edgesearch.tasks.task_images import FittedImages

RESULTS = "results.json"
MOST_NETWORKS = 3
"""Networks whose predictions are computed."""
MOST_TESTED = 1000
"""Test images of a confusion matrix at most."""
SHOWN = 8
"""Images with predictions."""
COLOURS = (
    *((11, 98, 168), (194, 87, 12), (26, 127, 75), (138, 63, 252)),
    *((168, 50, 106), (107, 111, 0), (0, 121, 140), (91, 75, 138)),
)
"""Of classes, in turn: those of the charts."""


def read_task(run: RunContext) -> TaskFacts | None:
    """The fine-tuned networks with predictions; None if there are none.

    Raises:
        UserError: The results are damaged.
    """
    path = run.files.finetune / RESULTS
    if not path.exists():
        return None
    values = read_json(path, "finetune")
    facts = TaskFacts(
        task=values["task"],
        head=values["head"],
        metric=values["metric"],
        networks=tuple(map(_network, values["rows"])),
    )
    settings = run.config.finetune
    if (settings.task, settings.head) != (facts.task, facts.head):
        return replace(
            facts, problem=f"the configuration asks for {settings.task}, {settings.head}"
        )
    try:
        return _with_predictions(run, facts)
    except UserError as error:
        why = f"required: {error.required}; found: {error.found}. {error.remedy}"
        return replace(facts, problem=why)


def _network(row: dict[str, Any]) -> TaskNetwork:
    """A row of the results; names of figures are followed by that of a class, if they have one."""
    whole: dict[str, float] = {}
    of_classes: dict[str, dict[str, float]] = {}
    for key, value in row["figures"].items():
        name, _, label = key.partition(" ")
        if label:
            of_classes.setdefault(label, {})[name] = value
        else:
            whole[name] = value
    return TaskNetwork(row["name"], row, whole, of_classes)


def _with_predictions(run: RunContext, facts: TaskFacts) -> TaskFacts:
    pool = run.open_images()
    finetuning = Finetuning(
        settings=run.config.finetune,
        space=run.space,
        pool=pool,
        seed=run.config.seed,
        weights=None,
        calibration_images=run.config.search.calibration_images,
        calibration_batch=run.config.search.batch_size,
    )
    _, test = pool.annotated(TASKS[facts.task].annotations)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(run.config.seed))
    of_images = facts.task == "classification"
    chosen = test.subset(order[: MOST_TESTED if of_images else SHOWN].tolist())
    networks = tuple(
        _judged(run, finetuning, each, chosen, of_images) if place < MOST_NETWORKS else each
        for place, each in enumerate(facts.networks)
    )
    return replace(facts, networks=networks, classes=finetuning.classes)


def _judged(
    run: RunContext,
    finetuning: Finetuning,
    network: TaskNetwork,
    images: ImageSet,
    of_images: bool,
) -> TaskNetwork:
    """The network with its predictions of held-out images."""
    name = network.about["architecture"]
    model = finetuning.load(run.files.finetune / name, run.space.from_text(name))
    task = finetuning.task(model.resolution)
    fitted = FittedImages(images, task)
    device = next(model.parameters()).device
    found = [
        each for part in outputs_in_batches(model, task, fitted.images, device) for each in part
    ]
    examples = tuple(
        _example(finetuning, images, place, fitted, found[place])
        for place in range(min(SHOWN, len(images)))
    )
    if not of_images:
        return replace(network, examples=examples)
    confusion = _confusion(finetuning.classes, fitted.targets, found)
    return replace(network, examples=examples, confusion=confusion, of_classes=confusion.of_classes)


def _confusion(classes: Sequence[str], wanted: Sequence[int], found: Sequence[int]) -> Confusion:
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (np.asarray(wanted), np.asarray(found)), 1)
    return Confusion(tuple(classes), tuple(map(tuple, counts.tolist())), len(wanted))


def _example(
    finetuning: Finetuning, images: ImageSet, place: int, fitted: FittedImages, found: Any
) -> Example:
    image, target, classes = fitted.images[place], fitted.targets[place], finetuning.classes
    example = Example(_data_uri(_pixels(image)), _ratio(finetuning, images, place))
    if isinstance(found, Detections):
        return replace(example, truth=_true(target, classes), boxes=_likely(found, classes))
    if isinstance(found, np.ndarray):
        pixels = _pixels(image)
        maps = (_coloured(pixels, target.numpy()), _coloured(pixels, found))
        return replace(example, maps=maps)
    return replace(example, wanted=classes[target], found=classes[found])


def _ratio(finetuning: Finetuning, images: ImageSet, place: int) -> float:
    """Stretched images are shown in their own ratio, others as the squares that they are."""
    header = images.header(place)
    if finetuning.settings.fit != "stretch" or header is None:
        return 1.0
    return header.width / header.height


def _true(target: FramedBoxes, classes: Sequence[str]) -> tuple[Box, ...]:
    pairs = zip(target.corners.tolist(), target.labels.tolist(), strict=True)
    return tuple(_box(corners, label, classes, None) for corners, label in pairs)


def _likely(found: Detections, classes: Sequence[str]) -> tuple[Box, ...]:
    rows = zip(found.corners.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    return tuple(
        _box(corners, label, classes, score) for corners, label, score in rows if score >= LIKELY
    )


def _box(corners: Sequence[float], label: int, classes: Sequence[str], score: float | None) -> Box:
    left, top, right, bottom = corners
    return Box(left, top, right - left, bottom - top, classes[label], label, score)


def _pixels(image: torch.Tensor) -> np.ndarray:
    """(H, W, 3) of an image (C, H, W) uint8."""
    return image.expand(3, *image.shape[1:]).permute(1, 2, 0).numpy()


def _coloured(pixels: np.ndarray, labels: np.ndarray) -> str:
    """An image with the colour of each pixel's class over it; the first class is left as it is."""
    palette = np.array(COLOURS, np.float32)
    over = (labels > 0) & (labels != IGNORED)
    mixed = pixels.astype(np.float32)
    mixed[over] = 0.4 * mixed[over] + 0.6 * palette[labels[over] % len(COLOURS)]
    return _data_uri(mixed.round().astype(np.uint8))


def _data_uri(pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
