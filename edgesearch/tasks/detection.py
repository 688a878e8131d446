"""Detection: boxes of objects with their classes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.ops import nms
from torchvision.transforms import v2

from edgesearch.data.boxes import Boxes
from edgesearch.tasks.box_crop import BoxCrop
from edgesearch.tasks.task import Task

LEAST_SCORE = 0.01
"""Boxes below are no detections; those of `pycocotools` may have any score."""
OVERLAP = 0.5
"""Of two boxes of a class that overlap more, the one with the lower score is dropped."""
CANDIDATES = 400
"""Boxes with the highest scores that are compared with each other, for each image."""
MOST = 100
"""Detections of an image, as in COCO's evaluation."""
CROP_ATTEMPTS = 20


@dataclass(frozen=True)
class FramedBoxes:
    """Boxes (M, 4) in shares of the network's input, labels (M,) and what is ignored (M,)."""

    corners: torch.Tensor
    labels: torch.Tensor
    ignored: torch.Tensor


@dataclass(frozen=True)
class Detections:
    """Boxes (M, 4) in shares of the network's input, with scores and classes, best first."""

    corners: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Detection(Task):
    """Targets are `FramedBoxes`, predictions `Detections`. Figures are mean average precisions.

    The outputs are scores (N, A, classes) and boxes (N, A, 4) of all anchors, in shares of the
    input; `predictions` removes those that overlap.
    """

    name = "detection"

    def _changed(self, image: torch.Tensor, target: Boxes) -> tuple[torch.Tensor, FramedBoxes]:
        a, (height, width) = self.settings.augmentation, image.shape[1:]
        learnt = ~target.ignored
        scale = np.array([width, height, width, height], np.float32)
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(target.corners[learnt] * scale),
            format="XYXY",
            canvas_size=(height, width),
        )
        steps: list[v2.Transform] = [
            v2.RandomHorizontalFlip(a.flip_probability),
            v2.RandomVerticalFlip(a.vertical_flip_probability),
            v2.ColorJitter(a.brightness, a.contrast, a.saturation),
            v2.SanitizeBoundingBoxes(),
        ]
        if a.crop_scale[0] < 1 and len(boxes):
            least = a.crop_scale[0] ** 0.5
            steps.insert(0, BoxCrop(min_scale=least, trials=CROP_ATTEMPTS))
        sample = {
            "image": tv_tensors.Image(image),
            "boxes": boxes,
            "labels": torch.from_numpy(target.labels[learnt]),
        }
        sample = v2.Compose(steps)(sample)
        changed = sample["image"].as_subclass(torch.Tensor)
        height, width = changed.shape[1:]
        corners = sample["boxes"].as_subclass(torch.Tensor).float().reshape(-1, 4)
        corners = corners / torch.tensor([width, height, width, height])
        labels = sample["labels"]
        none = torch.zeros(len(labels), dtype=torch.bool)
        framed = self._framed(corners, labels, none, height, width)
        return self.preprocess(changed), framed

    def fitted(self, image: torch.Tensor, target: Boxes) -> tuple[torch.Tensor, FramedBoxes]:
        """See `Task`."""
        corners, labels, ignored = (
            torch.from_numpy(each) for each in (target.corners, target.labels, target.ignored)
        )
        framed = self._framed(corners, labels, ignored, *image.shape[1:])
        return self.preprocess(image), framed

    def _framed(
        self,
        corners: torch.Tensor,
        labels: torch.Tensor,
        ignored: torch.Tensor,
        height: int,
        width: int,
    ) -> FramedBoxes:
        """Boxes in shares of an image of this size, in shares of the input."""
        within = self.preprocess.size_within(height, width)
        high, wide = (side / self.preprocess.resolution for side in within)
        return FramedBoxes(corners * torch.tensor([wide, high, wide, high]), labels, ignored)

    def collate(self, targets: Sequence[FramedBoxes], device: torch.device) -> list[dict[str, Any]]:
        """Boxes in pixels of the input, with labels from 0, as torchvision has them."""
        size = self.preprocess.resolution
        return [
            {"boxes": (each.corners * size).to(device), "labels": each.labels.to(device)}
            for each in targets
        ]

    def predictions(self, outputs: Sequence[np.ndarray]) -> list[Detections]:
        """The best box of each object; see the constants of this module."""
        return [self._best(*map(torch.from_numpy, pair)) for pair in zip(*outputs, strict=True)]

    def _best(self, scores: torch.Tensor, corners: torch.Tensor) -> Detections:
        likely = (scores > LEAST_SCORE).nonzero()
        values = scores[likely[:, 0], likely[:, 1]]
        values, order = values.sort(descending=True, stable=True)
        anchors, labels = likely[order[:CANDIDATES]].T
        values, boxes = values[:CANDIDATES], corners[anchors].clamp(0, 1)
        # Each class apart: `batched_nms` moves classes apart, which rounds the corners.
        of_classes = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
        each = [places[nms(boxes[places], values[places], OVERLAP)] for places in of_classes]
        kept = torch.cat([*each, labels[:0]]).sort()[0][:MOST]
        return Detections(boxes[kept].numpy(), values[kept].numpy(), labels[kept].numpy())

    def figures(
        self, predictions: Sequence[Detections], targets: Sequence[FramedBoxes]
    ) -> dict[str, float]:
        """COCO's: mAP at an overlap of 0.5, mean over 0.5 to 0.95, and AP at 0.5 of each class."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        size = self.preprocess.resolution
        truth: list[dict[str, Any]] = []
        for number, target in enumerate(targets):
            rows = zip(target.corners.tolist(), target.labels.tolist(), target.ignored, strict=True)
            for corners, label, ignored in rows:
                box = _as_coco(corners, size)
                area = box[2] * box[3]
                about = {"id": len(truth) + 1, "image_id": number, "category_id": label}
                truth.append({**about, "bbox": box, "area": area, "iscrowd": int(ignored)})
        found = [
            {"image_id": number, "category_id": label, "bbox": _as_coco(box, size), "score": score}
            for number, each in enumerate(predictions)
            for box, score, label in zip(
                each.corners.tolist(), each.scores.tolist(), each.labels.tolist(), strict=True
            )
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": n, "width": size, "height": size} for n in range(len(targets))],
                "annotations": truth,
                "categories": [{"id": n, "name": name} for n, name in enumerate(self.classes)],
                "info": {},
            }
            coco.createIndex()
            judged = COCOeval(coco, coco.loadRes(found) if found else COCO(), "bbox")
            if not found:
                return {"map_50": 0.0, "map_50_95": 0.0} | self._of_classes(np.zeros(0))
            judged.evaluate()
            judged.accumulate()
        precision = judged.eval["precision"][:, :, :, 0, -1]  # overlap, recall, class
        present = precision > -1
        means = {
            "map_50": _mean(precision[0], present[0]),
            "map_50_95": _mean(precision, present),
        }
        return means | self._of_classes(precision[0])

    def _of_classes(self, precision: np.ndarray) -> dict[str, float]:
        """Average precision at 0.5 of each class, from those by recall and class."""
        if not precision.size:
            return {f"ap_50 {name}": 0.0 for name in self.classes}
        return {
            f"ap_50 {name}": _mean(precision[:, n], precision[:, n] > -1)
            for n, name in enumerate(self.classes)
        }


def _mean(values: np.ndarray, counted: np.ndarray) -> float:
    return float(values[counted].mean()) if counted.any() else 0.0


def _as_coco(corners: Sequence[float], size: int) -> list[float]:
    left, top, right, bottom = (value * size for value in corners)
    return [left, top, right - left, bottom - top]
