"""A linear classifier on the mean of the last map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.tasks.backbone import MapShapes
from edgesearch.tasks.model import Head


class LinearHead(Head):
    """Global average pooling and a linear layer; raw are logits (N, classes)."""

    dense = False
    output_names = ("logits",)
    label_smoothing = 0.0

    def __init__(self, shapes: MapShapes, classes: int) -> None:
        super().__init__(shapes, classes)
        self.fc = nn.Linear(shapes.channels[-1], classes)
        nn.init.normal_(self.fc.weight, 0.0, 0.01)
        nn.init.zeros_(self.fc.bias)

    def raw(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """See `Head`."""
        logits: torch.Tensor = self.fc(maps[-1].mean(dim=(2, 3)))
        return logits

    def loss(self, raw: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy with labels (N,) int64."""
        return F.cross_entropy(raw.float(), targets, label_smoothing=self.label_smoothing)

    def outputs(self, raw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `Head`."""
        return (raw,)
