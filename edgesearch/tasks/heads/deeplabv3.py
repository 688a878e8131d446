"""DeepLabV3: atrous spatial pyramid pooling on one map.

Source: Chen et al., "Rethinking atrous convolution" (2017); torchvision's layers. The map is that
of stride 16, without dilation of the backbone, as in `fcn.py`.
"""

from __future__ import annotations

import torch
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from edgesearch.tasks.backbone import MapShapes
from edgesearch.tasks.heads.fcn import STRIDE
from edgesearch.tasks.heads.pixels import PixelHead


class DeepLabV3(PixelHead):
    """See the module."""

    def __init__(self, shapes: MapShapes, classes: int) -> None:
        super().__init__(shapes, classes)
        self.used = self.last_map(shapes)
        self.deeplab = DeepLabHead(shapes.channels[self.used], classes)

    @classmethod
    def last_map(cls, shapes: MapShapes) -> int:
        """See `Head`."""
        return shapes.first_below(STRIDE)

    def raw(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """See `Head`."""
        return self.resized(self.deeplab(maps[self.used]))
