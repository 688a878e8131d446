"""Random crops that keep an object."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2


class BoxCrop(v2.RandomIoUCrop):
    """torchvision's `RandomIoUCrop`, of which all trials are made at once.

    The crops are distributed alike. Where objects are small, nearly all trials fail, and one after
    the other takes as long as a step of a small network. Boxes are corners in pixels.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """A crop and the boxes whose centres lie within it; empty for the whole image."""
        boxes = next(each for each in flat_inputs if isinstance(each, tv_tensors.BoundingBoxes))
        height, width = boxes.canvas_size
        corners, image = boxes.as_subclass(torch.Tensor), torch.tensor([width, height])
        centres = (corners[:, :2] + corners[:, 2:]) / 2
        while True:
            least_overlap = self.options[int(torch.randint(len(self.options), ()))]
            if least_overlap >= 1:
                return {}
            spread = self.max_scale - self.min_scale
            sizes = (image * (self.min_scale + spread * torch.rand(self.trials, 2))).long()
            starts = ((image - sizes) * torch.rand(self.trials, 2)).long()
            crops = torch.cat([starts, starts + sizes], dim=1).to(corners.dtype)
            ratios = sizes[:, 0] / sizes[:, 1]
            inside = (crops[:, None, :2] < centres) & (centres < crops[:, None, 2:])
            is_inside = inside.all(dim=2)
            overlaps = box_iou(crops, corners).where(is_inside, -1.0).amax(dim=1)
            fits = (self.min_aspect_ratio <= ratios) & (ratios <= self.max_aspect_ratio)
            found = (fits & (overlaps >= max(0.0, least_overlap))).nonzero()
            if len(found):
                first = int(found[0])
                (left, top), (wide, high) = starts[first].tolist(), sizes[first].tolist()
                place = {"left": left, "top": top, "width": wide, "height": high}
                return {**place, "is_within_crop_area": is_inside[first]}
