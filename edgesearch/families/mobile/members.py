"""Published mobile networks as spaces of one architecture each.

Their features are those before the classifier. Published weights go in by `load_state_dict` with
the names replaced in order: the convolutions and normalisations stand in the same order there.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgesearch.families.mobile.space import MobileSpace


def _each(*values: int) -> tuple[tuple[int, ...], ...]:
    """One choice for each stage."""
    return tuple((value,) for value in values)


_V2 = MobileSpace(
    name="mobilenet_v2",
    activation="relu6",
    stem_widths=(32,),
    stage_strides=(1, 2, 2, 2, 1, 2, 1),
    stage_widths=_each(16, 24, 32, 64, 96, 160, 320),
    stage_depths=_each(1, 2, 3, 4, 3, 3, 1),
    stage_kernels=_each(3, 3, 3, 3, 3, 3, 3),
    stage_expansions=_each(1, 6, 6, 6, 6, 6, 6),
    head_widths=(1280,),
    resolutions=(224,),
)
_LITE0 = replace(
    _V2,
    name="efficientnet_lite0",
    stage_widths=_each(16, 24, 40, 80, 112, 192, 320),
    stage_depths=_each(1, 2, 2, 3, 3, 4, 1),
    stage_kernels=_each(3, 3, 5, 3, 5, 5, 3),
    padding="tensorflow",
    norm_eps=1e-3,
)


def _lite(number: int, width: float, depth: float, resolution: int) -> MobileSpace:
    """EfficientNet-Lite: widths and depths of Lite0 multiplied, but for the ends."""

    def wider(channels: int) -> int:
        wide = channels * width
        rounded = max(8, int(wide + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * wide else rounded + 8

    first, *inner, last = (blocks for (blocks,) in _LITE0.stage_depths)
    return replace(
        _LITE0,
        name=f"efficientnet_lite{number}",
        stage_widths=_each(*(wider(channels) for (channels,) in _LITE0.stage_widths)),
        stage_depths=_each(first, *(math.ceil(blocks * depth) for blocks in inner), last),
        resolutions=(resolution,),
    )


_V4_CONV_SMALL = MobileSpace(
    name="mobilenet_v4_conv_small",
    activation="relu",
    stem="fused",
    stem_widths=(32,),
    # Blocks with equal kernels and expansions are one stage here.
    stage_strides=(2, 1, 1, 2, 1, 1, 1, 1),
    stage_widths=_each(96, 96, 96, 128, 128, 128, 128, 128),
    stage_depths=_each(1, 4, 1, 1, 1, 1, 1, 2),
    stage_start_kernels=_each(5, 0, 3, 3, 5, 0, 0, 0),
    stage_kernels=_each(5, 3, 0, 3, 5, 5, 5, 3),
    stage_expansions=_each(3, 2, 4, 6, 4, 4, 3, 4),
    head_widths=(960,),
    resolutions=(224,),
)

MEMBERS: dict[str, MobileSpace] = {
    space.name: space
    for space in (
        _V2,
        _LITE0,
        _lite(1, 1.0, 1.1, 240),
        _lite(2, 1.1, 1.2, 260),
        _V4_CONV_SMALL,
    )
}
"""MobileNetV2 (Sandler et al., CVPR 2018), EfficientNet-Lite0 to Lite2 (Tan and Le, ICML 2019;
tensorflow/tpu, efficientnet/lite) and MobileNetV4-Conv-Small (Qin et al., ECCV 2024; its last
layer behind the pooling belongs to the classifier), by name."""
