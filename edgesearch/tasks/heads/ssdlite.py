"""SSDlite: depthwise prediction layers on maps of several sizes.

Source: Sandler et al., "MobileNetV2" (CVPR 2018), section 6.2; Liu et al., "SSD" (ECCV 2016);
losses, matching and boxes are torchvision's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block
from torchvision.ops import boxes as box_ops

from edgesearch.tasks.backbone import MapShapes
from edgesearch.tasks.heads.anchors import OUTPUTS, anchors_of, decoded, from_stride
from edgesearch.tasks.model import Head

FIRST_STRIDE = 8
SCALES = (0.08, 0.75)
"""Sides of the smallest and the largest anchors, as shares of the image's."""
EXTRA_CHANNELS = 256
RATIOS = [2]


class SSDLite(Head):
    """Maps from stride 8 on and a further, smaller one; raw are torchvision's head outputs."""

    output_names = OUTPUTS

    def __init__(self, shapes: MapShapes, classes: int) -> None:
        super().__init__(shapes, classes)
        self.used = from_stride(shapes, FIRST_STRIDE)
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
        channels = [shapes.channels[n] for n in self.used]
        sizes = [shapes.sizes[n] for n in self.used]
        self.extra: nn.Module | None = None
        if sizes[-1] > 1:
            self.extra = _extra_block(channels[-1], EXTRA_CHANNELS, norm)
            channels.append(EXTRA_CHANNELS)
            sizes.append((sizes[-1] + 1) // 2)
        count = len(sizes)
        low, high = SCALES
        scales = [low * (high / low) ** (n / max(1, count - 1)) for n in range(count)]
        boxes = DefaultBoxGenerator([RATIOS] * count, scales=[*scales, 1.0])
        head = SSDLiteHead(channels, boxes.num_anchors_per_location(), classes + 1, norm)
        size = (shapes.resolution, shapes.resolution)
        self.ssd = SSD(nn.Identity(), boxes, size, classes + 1, head=head)
        self.register_buffer("anchors", anchors_of(boxes, shapes.resolution, sizes), False)

    def raw(self, maps: list[torch.Tensor]) -> Any:
        """See `Head`."""
        used = [maps[n] for n in self.used]
        if self.extra is not None:
            used.append(self.extra(used[-1]))
        return self.ssd.head(used)

    def loss(self, raw: Any, targets: list[dict[str, Any]]) -> torch.Tensor:
        """Smooth L1 and cross-entropy with hard negatives."""
        anchors: Any = self.anchors
        raw = {name: value.float() for name, value in raw.items()}
        shifted = [{**each, "labels": each["labels"] + 1} for each in targets]  # 0 is background
        matched = [
            self.ssd.proposal_matcher(box_ops.box_iou(each["boxes"], anchors))
            if len(each["boxes"])
            else torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
            for each in shifted
        ]
        losses = self.ssd.compute_loss(shifted, raw, [anchors] * len(shifted), matched)
        total: torch.Tensor = losses["bbox_regression"] + losses["classification"]
        return total

    def outputs(self, raw: Any) -> tuple[torch.Tensor, ...]:
        """See `Head`."""
        anchors: Any = self.anchors
        scores = raw["cls_logits"].softmax(dim=-1)[..., 1:]
        boxes = decoded(self.ssd.box_coder, raw["bbox_regression"], anchors, self.shapes.resolution)
        return scores, boxes
