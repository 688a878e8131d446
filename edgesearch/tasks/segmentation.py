"""Segmentation: the class of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgesearch.data.label_maps import IGNORED, LabelMap
from edgesearch.tasks.classification import TEMPERATURE
from edgesearch.tasks.task import Task


class Segmentation(Task):
    """Targets and predictions are maps (R, R) uint8. Figures: mean IoU, accuracy, IoU by class.

    The output is logits (N, classes, R, R).
    """

    name = "segmentation"

    def _changed(self, image: torch.Tensor, target: LabelMap) -> tuple[torch.Tensor, torch.Tensor]:
        a, size = self.settings.augmentation, self.preprocess.resolution
        labels = torch.from_numpy(target.load(*image.shape[1:]))
        transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, a.crop_scale, antialias=True),
                v2.RandomHorizontalFlip(a.flip_probability),
                v2.RandomVerticalFlip(a.vertical_flip_probability),
                v2.ColorJitter(a.brightness, a.contrast, a.saturation),
            ]
        )
        changed, mask = transform(tv_tensors.Image(image), tv_tensors.Mask(labels[None]))
        return changed.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)[0]

    def fitted(self, image: torch.Tensor, target: LabelMap) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Task`; borders are ignored."""
        height, width = image.shape[1:]
        labels = torch.from_numpy(target.load(height, width))
        size = self.preprocess.size_within(height, width)
        resized = F.interpolate(labels[None, None].float(), size, mode="nearest-exact")[0, 0].byte()
        right, below = (self.preprocess.resolution - side for side in (size[1], size[0]))
        return self.preprocess(image), F.pad(resized, (0, right, 0, below), value=IGNORED)

    def collate(self, targets: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
        """Maps (N, R, R) int64."""
        return torch.stack(list(targets)).long().to(device)

    def imitation(self, raw: torch.Tensor, teacher_raw: torch.Tensor) -> torch.Tensor:
        """KL divergence from softened probabilities, mean over pixels."""
        wanted = F.log_softmax(teacher_raw.float() / TEMPERATURE, dim=1)
        found = F.log_softmax(raw.float() / TEMPERATURE, dim=1)
        divergence = F.kl_div(found, wanted, reduction="none", log_target=True).sum(dim=1)
        return divergence.mean() * TEMPERATURE**2

    def predictions(self, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The class of the highest logit of each pixel."""
        return list(outputs[0].argmax(axis=1).astype(np.uint8))

    def figures(self, predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        """See the class; over all pixels of all images, classes without a pixel left out."""
        from sklearn.metrics import confusion_matrix

        numbers = range(len(self.classes))
        total = np.zeros((len(numbers), len(numbers)), np.int64)
        for found, wanted in zip(predictions, targets, strict=True):
            judged = (known := np.asarray(wanted)) != IGNORED
            total += confusion_matrix(known[judged], found[judged], labels=list(numbers))
        right = np.diag(total)
        union = total.sum(axis=0) + total.sum(axis=1) - right
        present = union > 0
        shares = right[present] / union[present]
        names = [name for name, there in zip(self.classes, present, strict=True) if there]
        return {
            "mean_iou": float(shares.mean()),
            "pixel_accuracy": float(right.sum() / max(1, total.sum())),
            **{f"iou {name}": float(each) for name, each in zip(names, shares, strict=True)},
        }
