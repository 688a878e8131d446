"""FCN: a 3 × 3 convolution on one map.

Source: Long et al., "Fully convolutional networks" (CVPR 2015); torchvision's layers. The map is
that of stride 16: the backbone is not dilated, so that its latency stays that of its blocks.
"""

from __future__ import annotations

import torch
from torchvision.models.segmentation.fcn import FCNHead

from edgesearch.tasks.backbone import MapShapes
from edgesearch.tasks.heads.pixels import PixelHead

STRIDE = 16


class FCN(PixelHead):
    """See the module."""

    def __init__(self, shapes: MapShapes, classes: int) -> None:
        super().__init__(shapes, classes)
        self.used = self.last_map(shapes)
        self.fcn = FCNHead(shapes.channels[self.used], classes)

    @classmethod
    def last_map(cls, shapes: MapShapes) -> int:
        """See `Head`."""
        return shapes.first_below(STRIDE)

    def raw(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """See `Head`."""
        return self.resized(self.fcn(maps[self.used]))
