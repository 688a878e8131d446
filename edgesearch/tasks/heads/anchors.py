"""What heads with anchors share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList

from edgesearch.tasks.backbone import MapShapes

OUTPUTS = ("scores", "boxes")


def from_stride(shapes: MapShapes, stride: int) -> list[int]:
    """Numbers of the maps that are at least `stride` times smaller than the images."""
    first = shapes.first_below(stride)
    return list(range(first, len(shapes.sizes)))


def anchors_of(generator: Any, resolution: int, sizes: Sequence[int]) -> torch.Tensor:
    """All anchors (A, 4) in pixels for maps of these heights and widths."""
    images = ImageList(torch.zeros(1, 1, resolution, resolution), [(resolution, resolution)])
    maps = [torch.zeros(1, 1, size, size) for size in sizes]
    anchors: torch.Tensor = generator(images, maps)[0]
    return anchors


def decoded(
    coder: BoxCoder, regression: torch.Tensor, anchors: torch.Tensor, resolution: int
) -> torch.Tensor:
    """Boxes (N, A, 4) in shares of the images, from regressions (N, A, 4)."""
    count = regression.shape[0]  # len() would fix a dynamic batch
    boxes = coder.decode_single(regression.reshape(-1, 4), anchors.repeat(count, 1))
    return boxes.reshape(count, -1, 4) / resolution
