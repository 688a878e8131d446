"""Lite R-ASPP: a small head on two maps.

Source: Howard et al., "Searching for MobileNetV3" (ICCV 2019), section 6.4; torchvision's layers.
The high map is the last one; torchvision dilates its backbone instead.
"""

from __future__ import annotations

import torch
from torchvision.models.segmentation.lraspp import LRASPPHead

from edgesearch.tasks.backbone import MapShapes
from edgesearch.tasks.heads.pixels import PixelHead

LOW_STRIDE = 8
INNER_CHANNELS = 128


class LiteRASPP(PixelHead):
    """See the module."""

    def __init__(self, shapes: MapShapes, classes: int) -> None:
        super().__init__(shapes, classes)
        self.low = shapes.first_below(LOW_STRIDE)
        channels = shapes.channels[self.low], shapes.channels[-1]
        self.lraspp = LRASPPHead(*channels, classes, INNER_CHANNELS)

    def raw(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """See `Head`."""
        return self.resized(self.lraspp({"low": maps[self.low], "high": maps[-1]}))
