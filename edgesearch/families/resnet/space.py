"""The search space of residual networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from devices.values import in_yaml
from edgesearch.families.resnet.block import BOTTLENECK_EXPANSION, ResNetBlock
from edgesearch.space import Part, SearchSpace
from edgesearch.space.block import strided
from edgesearch.space.search_space import is_one_of

if TYPE_CHECKING:
    from edgesearch.families.resnet.network import ResNet
    from edgesearch.space.network import Layers

STEMS = ("imagenet", "small")
BLOCKS = ("basic", "bottleneck")


@dataclass(frozen=True)
class ResNetSpace(SearchSpace):
    """Residual networks with choices of width, depth and resolution.

    The first block of each stage has a projection shortcut (see `stage1_shortcut`); from the second
    stage on it halves height and width.

    Source: DATA (CVPR 2022), section 3.1, whose space is `resnet50to101`.

    Attributes:
        block: "basic" or "bottleneck".
        stem: "imagenet" (7×7 of stride 2, max-pooling) or "small" (3×3).
        stem_stride: Stride of a small stem; 2 for the ImageNet stem.
        stem_widths: Choices of the stem's channels.
        stage_widths: For each stage, the choices of its width (bottleneck: of the middle).
        stage_depths: For each stage, the choices of its number of blocks.
        stage1_shortcut: "identity" for basic blocks without a projection in the first stage, as in
            torchvision's ResNet-18 and 34; the stem then has the width of the first stage.
    """

    reads_public_weights = "edgesearch.families.resnet.public_weights:read_resnet"

    name: str
    block: str
    stem: str
    stem_widths: tuple[int, ...]
    stage_widths: tuple[tuple[int, ...], ...]
    stage_depths: tuple[tuple[int, ...], ...]
    resolutions: tuple[int, ...]
    stem_stride: int = 2
    in_channels: int = 3
    family: str = "resnet"
    stage1_shortcut: str | None = None

    def faults(self) -> Iterator[str]:
        """See `SearchSpace`."""
        if self.block not in BLOCKS:
            yield f"block {in_yaml(self.block)} (one of {', '.join(BLOCKS)})"
        if self.stem not in STEMS:
            yield f"stem {in_yaml(self.stem)} (one of {', '.join(STEMS)})"
        if not is_one_of(self.stem_stride, (2,) if self.stem == "imagenet" else (1, 2)):
            yield f"stem_stride {in_yaml(self.stem_stride)} (1 or 2; 2 with the imagenet stem)"
        if not self.stage_widths or len(self.stage_widths) != len(self.stage_depths):
            yield (
                f"{len(self.stage_widths)} entries in stage_widths and {len(self.stage_depths)} "
                "in stage_depths (one of each for every stage)"
            )
        if self.stage1_shortcut not in (None, "identity"):
            shown = in_yaml(self.stage1_shortcut)
            yield f"stage1_shortcut {shown} (identity, or none for a projection)"
        elif self.stage1_shortcut and self.block != "basic":
            yield f"stage1_shortcut identity with block {in_yaml(self.block)} (basic)"
        elif self.stage1_shortcut and self.stem_widths not in self.stage_widths[:1]:
            yield (
                f"stage1_shortcut identity with stem_widths {in_yaml(self.stem_widths)} and "
                f"stage_widths {in_yaml(self.stage_widths[:1])} … (the "
                "identity has as many channels behind it as before: the same list for both)"
            )

    @property
    def own_choices(self) -> dict[str, tuple[int, ...]]:
        """Widths of stem and stages, then depths."""
        return {
            "stem_width": self.stem_widths,
            **{
                f"stage{i}_width": widths
                for i, widths in enumerate(self.stage_widths, 1)
                if i > 1 or not self.stage1_shortcut
            },
            **{f"stage{i}_depth": depths for i, depths in enumerate(self.stage_depths, 1)},
        }

    @property
    def text_form(self) -> dict[str, tuple[str, ...]]:
        """Texts such as `stem16_w16-48-96_d2-1-2_r32`."""
        stages = range(1, len(self.stage_widths) + 1)
        return {
            "stem": ("stem_width",),
            "w": tuple(name for name in self.own_choices if name.endswith("_width"))[1:],
            "d": tuple(f"stage{i}_depth" for i in stages),
            "r": ("resolution",),
        }

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Stem, stages (which also depend on the width before) and head."""
        widths = ["stem_width", *(f"stage{i + 1}_width" for i in range(len(self.stage_widths)))]
        if self.stage1_shortcut:
            widths[1] = "stem_width"
        stages = [
            Part(
                (*dict.fromkeys(widths[i : i + 2]), f"stage{i + 1}_depth"),
                partial(self._stage, i),
                f"layer{i + 1}",
            )
            for i in range(len(self.stage_widths))
        ]
        return (Part(("stem_width",), self._stem), *stages, Part((widths[-1],), self._head))

    def make_network(self, blocks: Sequence[Any], layers: Layers | None = None) -> ResNet:
        """See `SearchSpace`."""
        from edgesearch.families.resnet.network import ResNet
        from edgesearch.space.network import PLAIN

        return ResNet(blocks, layers or PLAIN)

    @property
    def expansion(self) -> int:
        """Ratio of a block's output channels to its width."""
        return BOTTLENECK_EXPANSION if self.block == "bottleneck" else 1

    def _stem(self, resolution: int, width: int) -> tuple[ResNetBlock, ...]:
        kind = f"stem_{self.stem}"
        return (ResNetBlock(kind, self.in_channels, width, width, self.stem_stride, resolution),)

    def _stage(self, stage: int, resolution: int, *chosen: int) -> tuple[ResNetBlock, ...]:
        """The blocks of a stage (from 0).

        `chosen` are the width before (not where the first stage has the stem's), width and depth.
        """
        before, width, depth = chosen[0], *chosen[-2:]
        in_channels, channels = before * (self.expansion if stage else 1), width * self.expansion
        hw, stride = self._hw_before(stage, resolution), 2 if stage else 1
        projection = stage > 0 or not self.stage1_shortcut
        first = ResNetBlock(self.block, in_channels, width, channels, stride, hw, projection)
        rest = ResNetBlock(self.block, channels, width, channels, 1, first.out_hw)
        return (first,) + (rest,) * (depth - 1)

    def _head(self, resolution: int, width: int) -> tuple[ResNetBlock, ...]:
        channels, hw = width * self.expansion, self._hw_before(len(self.stage_widths), resolution)
        return (ResNetBlock("head", channels, channels, channels, 1, hw),)

    def _hw_before(self, stage: int, resolution: int) -> int:
        """Input height and width of a stage, or of the head after the last stage."""
        hw = self._stem(resolution, 1)[0].out_hw
        for _ in range(stage - 1):
            hw = strided(hw, 2)
        return hw
