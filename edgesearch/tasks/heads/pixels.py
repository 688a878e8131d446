"""What heads for segmentation share."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from edgesearch.data.label_maps import IGNORED
from edgesearch.tasks.model import Head


class PixelHead(Head):
    """Raw are logits (N, classes, R, R)."""

    output_names = ("logits",)

    def resized(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits at the size of the images."""
        size = (self.shapes.resolution, self.shapes.resolution)
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    def loss(self, raw: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy with maps (N, R, R) int64, mean over the pixels that have a class."""
        return F.cross_entropy(raw.float(), targets, ignore_index=IGNORED)

    def outputs(self, raw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `Head`."""
        return (raw,)
