"""Fine-tuned networks and their figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LARGEST_MATRIX = 20
"""Classes up to which the whole matrix is shown; of more, the pairs that are confused most."""
PAIRS = 12
LIKELY = 0.3
"""Score from which boxes are drawn."""
TITLES = {
    "map_50": "mAP at 0.5",
    "map_50_95": "mAP at 0.5 to 0.95",
    "ap_50": "AP at 0.5",
    "mean_iou": "mean IoU",
    "iou": "IoU",
    "accuracy_mean_of_classes": "mean over classes",
}
"""Figures whose keys do not read well."""


@dataclass(frozen=True)
class Box:
    """A box in shares of the image; `number` is that of its class, `score` None if it is true."""

    left: float
    top: float
    width: float
    height: float
    label: str
    number: int
    score: float | None


@dataclass(frozen=True)
class Example:
    """A held-out image and what a network says of it.

    Attributes:
        uri: The image as the network sees it.
        ratio: Width as a multiple of the height, as it is to be shown.
        wanted: Its class; empty for other tasks.
        found: The class that the network finds.
        truth: The boxes that are there.
        boxes: Those that the network finds.
        maps: Pictures of the classes that are there, and of those that the network finds.
    """

    uri: str
    ratio: float
    wanted: str = ""
    found: str = ""
    truth: tuple[Box, ...] = ()
    boxes: tuple[Box, ...] = ()
    maps: tuple[str, str] | None = None


@dataclass(frozen=True)
class Confusion:
    """How often images of each class (rows) were taken for each class (columns)."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    images: int

    @property
    def is_small(self) -> bool:
        """Whether the whole matrix can be shown."""
        return len(self.classes) <= LARGEST_MATRIX

    @property
    def mistakes(self) -> list[tuple[str, str, int, float]]:
        """Class, class it was taken for, how often, and the share of its images; most first."""
        found = [
            (self.classes[row], self.classes[column], count, count / sum(counts))
            for row, counts in enumerate(self.counts)
            for column, count in enumerate(counts)
            if count and row != column
        ]
        return sorted(found, key=lambda each: -each[2])[:PAIRS]

    @property
    def of_classes(self) -> dict[str, dict[str, float]]:
        """Share of each class that is found, and share of what is taken for it that is right."""
        columns = [sum(column) for column in zip(*self.counts, strict=True)]
        return {
            name: {
                "recall": counts[place] / max(1, sum(counts)),
                "precision": counts[place] / max(1, columns[place]),
                "images": sum(counts),
            }
            for place, (name, counts) in enumerate(zip(self.classes, self.counts, strict=True))
        }


@dataclass(frozen=True)
class TaskNetwork:
    """A trained network.

    Attributes:
        about: Its row of the results.
        figures: Figures over all classes, in 0 … 1, the one that decides first.
        of_classes: Figures of each class by name.
    """

    name: str
    about: dict[str, Any]
    figures: dict[str, float]
    of_classes: dict[str, dict[str, float]]
    confusion: Confusion | None = None
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class TaskFacts:
    """The fine-tuned networks of a run.

    Attributes:
        problem: Why there are no predictions; empty if there are.
    """

    task: str
    head: str
    metric: str
    networks: tuple[TaskNetwork, ...]
    classes: tuple[str, ...] = ()
    problem: str = ""
    likely: float = field(default=LIKELY)

    @property
    def figures(self) -> list[str]:
        """Names of the figures over all classes, as keys."""
        return [*dict.fromkeys(key for each in self.networks for key in each.figures)]

    @property
    def of_classes(self) -> list[str]:
        """Names of the classes that have figures."""
        return [*dict.fromkeys(key for each in self.networks for key in each.of_classes)]


def title_of(figure: str) -> str:
    """The name of a figure in words."""
    return TITLES.get(figure, figure.replace("_", " "))
