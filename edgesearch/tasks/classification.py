"""Classification: one class for an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from edgesearch.tasks.heads.linear import LinearHead
from edgesearch.tasks.model import Head
from edgesearch.tasks.task import Task

TEMPERATURE = 2.0
"""Of the teacher's probabilities."""


class Classification(Task):
    """Targets are labels; predictions are classes. Figures: accuracy, and its mean over classes."""

    name = "classification"

    def configure(self, head: Head) -> None:
        """See `Task`."""
        if isinstance(head, LinearHead):
            head.label_smoothing = self.settings.label_smoothing

    def _changed(self, image: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
        return self._transform(image), target

    @property
    def _transform(self) -> v2.Compose:
        a, size = self.settings.augmentation, self.preprocess.resolution
        return v2.Compose(
            [
                v2.RandomResizedCrop(size, a.crop_scale, antialias=True),
                v2.RandomHorizontalFlip(a.flip_probability),
                v2.RandomVerticalFlip(a.vertical_flip_probability),
                v2.ColorJitter(a.brightness, a.contrast, a.saturation),
            ]
        )

    def fitted(self, image: torch.Tensor, target: Any) -> tuple[torch.Tensor, Any]:
        """See `Task`."""
        return self.preprocess(image), target

    def collate(self, targets: Sequence[Any], device: torch.device) -> torch.Tensor:
        """Labels (N,) int64."""
        return torch.tensor(targets, dtype=torch.int64, device=device)

    def imitation(self, raw: torch.Tensor, teacher_raw: torch.Tensor) -> torch.Tensor:
        """KL divergence from softened probabilities (Hinton et al., 2015, section 2)."""
        wanted = F.log_softmax(teacher_raw.float() / TEMPERATURE, dim=1)
        found = F.log_softmax(raw.float() / TEMPERATURE, dim=1)
        divergence = F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        return divergence * TEMPERATURE**2

    def predictions(self, outputs: Sequence[np.ndarray]) -> list[int]:
        """The class of the highest logit."""
        return [int(each) for each in outputs[0].argmax(axis=1)]

    def figures(self, predictions: Sequence[int], targets: Sequence[int]) -> dict[str, float]:
        """See `Task`."""
        from sklearn.metrics import accuracy_score, recall_score

        recalls = recall_score(targets, predictions, average="macro", zero_division=0.0)
        return {
            "accuracy": float(accuracy_score(targets, predictions)),
            "accuracy_mean_of_classes": float(recalls),
        }
