"""All tasks with their heads, by name. Loads no torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_HEADS = "edgesearch.tasks.heads"


@dataclass(frozen=True)
class TaskRecord:
    """A task.

    Attributes:
        name: Name in configurations.
        metric: Name of the figure that decides; higher is better.
        implementation: Module and class of its `Task`.
        heads: Module and class of each head by name; the first is the default.
        annotations: Kind of the annotations of its images; None for classes.
        in_graph: Module and class of its post-processing in ONNX graphs, an `InGraph`; None where
            the outputs need none, or programs do it.
        training: Defaults of options in `FinetuneSettings` that depend on the task.
    """

    name: str
    metric: str
    implementation: str
    heads: Mapping[str, str]
    training: Mapping[str, Any]
    annotations: str | None = None
    in_graph: str | None = None

    def task_class(self) -> Any:
        """The class of the task, a `Task`."""
        return _load(self.implementation)

    def post_processing(self) -> Any:
        """Its post-processing in ONNX graphs, an `InGraph`, or None."""
        return None if self.in_graph is None else _load(self.in_graph)()

    def head_class(self, name: str) -> Any:
        """The class of one of its heads, a `Head`."""
        return _load(self.heads[name])


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


TASKS = {
    record.name: record
    for record in (
        TaskRecord(
            "classification",
            metric="accuracy",
            implementation="edgesearch.tasks.classification:Classification",
            heads={"linear": f"{_HEADS}.linear:LinearHead"},
            training={"epochs": 30, "batch_size": 32, "lr": 1e-3, "fit": "crop"},
        ),
        TaskRecord(
            "detection",
            metric="map_50",
            implementation="edgesearch.tasks.detection:Detection",
            heads={
                "ssdlite": f"{_HEADS}.ssdlite:SSDLite",
                "retinanet": f"{_HEADS}.retinanet:Retina",
            },
            training={"epochs": 60, "batch_size": 16, "lr": 1e-3, "fit": "stretch"},
            annotations="boxes",
            in_graph="edgesearch.tasks.boxes_in_graph:BoxesInGraph",
        ),
        TaskRecord(
            "segmentation",
            metric="mean_iou",
            implementation="edgesearch.tasks.segmentation:Segmentation",
            heads={
                "lraspp": f"{_HEADS}.lraspp:LiteRASPP",
                "fcn": f"{_HEADS}.fcn:FCN",
                "deeplabv3": f"{_HEADS}.deeplabv3:DeepLabV3",
            },
            training={"epochs": 40, "batch_size": 16, "lr": 1e-3, "fit": "stretch"},
            annotations="maps",
        ),
    )
}
