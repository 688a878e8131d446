"""RetinaNet: a feature pyramid and the focal loss.

Source: Lin et al., "Focal loss for dense object detection" (ICCV 2017); losses, matching and boxes
are torchvision's. Group normalisation, since batches of a detector are small.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork

from edgesearch.tasks.backbone import MapShapes
from edgesearch.tasks.heads.anchors import OUTPUTS, anchors_of, decoded, from_stride
from edgesearch.tasks.model import Head

FIRST_STRIDE = 8
CHANNELS = 256
GROUPS = 32
ANCHOR_STRIDES = 4
"""Side of the smallest anchors of a map, as a multiple of its stride."""


class Retina(Head):
    """A pyramid on the maps from stride 8 on; raw are torchvision's head outputs."""

    output_names = OUTPUTS

    def __init__(self, shapes: MapShapes, classes: int) -> None:
        super().__init__(shapes, classes)
        self.used = from_stride(shapes, FIRST_STRIDE)
        sizes = [shapes.sizes[n] for n in self.used]
        self.pyramid = FeaturePyramidNetwork([shapes.channels[n] for n in self.used], CHANNELS)
        sides = [ANCHOR_STRIDES * shapes.resolution / size for size in sizes]
        scales = tuple(tuple(side * 2 ** (n / 3) for n in range(3)) for side in sides)
        anchors = AnchorGenerator(scales, ((0.5, 1.0, 2.0),) * len(sides))
        each = anchors.num_anchors_per_location()[0]
        head = RetinaNetHead(CHANNELS, each, classes, partial(nn.GroupNorm, GROUPS))
        trunk = nn.Identity()
        trunk.out_channels = CHANNELS  # type: ignore[assignment]
        self.retina = RetinaNet(trunk, classes, anchor_generator=anchors, head=head)
        self.register_buffer("anchors", anchors_of(anchors, shapes.resolution, sizes), False)

    def raw(self, maps: list[torch.Tensor]) -> Any:
        """See `Head`."""
        pyramid = self.pyramid({str(n): maps[n] for n in self.used})
        return self.retina.head(list(pyramid.values()))

    def loss(self, raw: Any, targets: list[dict[str, Any]]) -> torch.Tensor:
        """L1 and focal loss."""
        raw = {name: value.float() for name, value in raw.items()}
        losses = self.retina.compute_loss(targets, raw, [self.anchors] * len(targets))
        total: torch.Tensor = losses["bbox_regression"] + losses["classification"]
        return total

    def outputs(self, raw: Any) -> tuple[torch.Tensor, ...]:
        """See `Head`."""
        anchors: Any = self.anchors
        boxes = decoded(
            self.retina.box_coder, raw["bbox_regression"], anchors, self.shapes.resolution
        )
        return raw["cls_logits"].sigmoid(), boxes
