"""The search space of mobile networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from devices.values import in_yaml
from edgesearch.families.mobile.block import STEM_STRIDES, STEMS, MobileBlock
from edgesearch.space import Part, SearchSpace
from edgesearch.space.block import strided
from edgesearch.space.search_space import is_one_of, rising

if TYPE_CHECKING:
    from edgesearch.families.mobile.network import MobileNetwork
    from edgesearch.space.network import Layers

ACTIVATION_NAMES = ("relu", "relu6", "hard_swish")
PADDINGS = ("symmetric", "tensorflow")
START_KERNELS = (0, 3, 5)
KERNELS = (0, 3, 5, 7)
"""Kernel sizes of the depthwise convolutions before and behind the expansion; 0 for none."""
LEAST_EPS, MOST_EPS = 1e-12, 1.0
"""In single precision a smaller one is lost, and a larger one hides the variances."""


@dataclass(frozen=True)
class MobileSpace(SearchSpace):
    """Networks of universal inverted bottlenecks, with choices for each stage.

    All blocks of a stage have the stage's width, kernels and expansion; the first one has its
    stride. A block adds its input where shapes allow. A 1×1 convolution precedes the pooling.
    There is no squeeze-and-excitation: its global pooling costs more time than its multiply-
    accumulates tell, and its products of activations lose accuracy in eight bits.

    Source: Qin et al., "MobileNetV4" (ECCV 2024), for the block; Cai et al., "Once-for-All" (ICLR
    2020), for elastic kernels and expansions.

    Attributes:
        activation: "relu", "relu6" or "hard_swish". In eight bits the first two are part of the
            ranges of the convolutions; hard-swish is computed in single precision, between
            conversions of its own.
        stem: "conv" (3×3 of stride 2) or "fused" (the first three stages of
            MobileNetV4-Conv-Small: stride 8, twice as many channels as its width).
        stem_widths: Choices of the stem's width.
        stage_strides: The stride of each stage, 1 or 2.
        stage_widths: For each stage, the choices of its width.
        stage_depths: For each stage, the choices of its number of blocks.
        stage_kernels: For each stage, the choices of the depthwise kernel behind the expansion
            (0 for none, 3, 5 or 7).
        stage_expansions: For each stage, the choices of the ratio of inner to input channels (1
            for no expansion).
        head_widths: Choices of the width of the last 1×1 convolution.
        stage_start_kernels: For each stage, the choices of the depthwise kernel before the
            expansion (0 for none, 3 or 5); without this field no block has one.
        padding: "symmetric", or "tensorflow": strided convolutions have the zeros where
            TensorFlow's padding "SAME" has them, as weights from there require.
        norm_eps: Added to the variances of the normalisations; 0.001 in TensorFlow's networks.
    """

    reads_public_weights = "edgesearch.families.mobile.public_weights:read_mobile"

    name: str
    activation: str
    stem_widths: tuple[int, ...]
    stage_strides: tuple[int, ...]
    stage_widths: tuple[tuple[int, ...], ...]
    stage_depths: tuple[tuple[int, ...], ...]
    stage_kernels: tuple[tuple[int, ...], ...]
    stage_expansions: tuple[tuple[int, ...], ...]
    head_widths: tuple[int, ...]
    resolutions: tuple[int, ...]
    stem: str = "conv"
    stage_start_kernels: tuple[tuple[int, ...], ...] = ()
    padding: str = "symmetric"
    norm_eps: float = 1e-5
    in_channels: int = 3
    family: str = "mobile"

    def faults(self) -> Iterator[str]:
        """See `SearchSpace`."""
        for name, value, known in (
            ("activation", self.activation, ACTIVATION_NAMES),
            ("stem", self.stem, STEMS),
            ("padding", self.padding, PADDINGS),
        ):
            if value not in known:
                yield f"{name} {in_yaml(value)} (one of {', '.join(known)})"
        eps = self.norm_eps
        if type(eps) not in (int, float) or not LEAST_EPS <= eps <= MOST_EPS:
            yield f"norm_eps {in_yaml(eps)} (a number from 1.0e-12 to 1, such as 1.0e-3)"
        counts = {name: len(values) for name, values in self._by_stage.items()}
        if not counts["stage_widths"] or len(set(counts.values())) > 1:
            shown = ", ".join(f"{count} in {name}" for name, count in counts.items())
            yield f"entries of stages: {shown} (one in each for every stage)"
            return
        if not all(is_one_of(stride, (1, 2)) for stride in self.stage_strides):
            yield f"stage_strides {in_yaml(self.stage_strides)} (each 1 or 2)"
            return
        choices = self.choices.items()
        are_lists = all(rising(values, self.least(name)) for name, values in choices)
        if are_lists and self.stem in STEMS:
            for stage in range(len(self.stage_widths)):
                yield from self._stage_faults(stage)

    def _stage_faults(self, stage: int) -> Iterator[str]:
        number, kernels, starts = stage + 1, self.stage_kernels[stage], self._starts(stage)
        for name, values, known in (
            ("kernel", kernels, KERNELS),
            ("start_kernel", starts, START_KERNELS),
        ):
            if not set(values) <= set(known):
                where = self.written(f"stage{number}_{name}")
                yield f"{where} {list(values)} (each one of {list(known)})"
        if 0 in kernels and 0 in starts:
            if self.stage_strides[stage] > 1:
                yield (
                    f"stage{number} with a stride and no depthwise convolution that could have it "
                    f"(0 in kernels {list(kernels)} and in start_kernels {list(starts)}: one of "
                    "these lists must begin with 3 or more)"
                )
            elif 1 in self.stage_expansions[stage]:
                yield (
                    f"stage{number} with neither depthwise convolution nor expansion (0 in kernels "
                    f"{list(kernels)} and in start_kernels {list(starts)}, 1 in expansions: one of "
                    "the first two must begin with 3 or more, or the expansions with 2 or more)"
                )
        side = self._hw_before(stage, self.resolutions[0])
        after = strided(side, self.stage_strides[stage])
        # Blocks behind the first one of a stage have the smaller map.
        least = after if self.stage_depths[stage][-1] > 1 else side
        largest = max(*kernels, *starts)
        if largest > 2 * least - 1:
            yield (
                f"stage{number} with a kernel of size {largest} on a map of {least}×{least} pixels "
                f"at {self.resolutions[0]} px (at most {2 * least - 1}, as the rest would only see "
                "zeros: a smaller kernel or a larger resolution)"
            )

    @property
    def form(self) -> dict[str, Any]:
        """See `SearchSpace`."""
        return {**super().form, "stage_strides": self.stage_strides}

    def notices(self) -> Iterator[str]:
        """See `SearchSpace`."""
        stride = STEM_STRIDES[self.stem] * math.prod(self.stage_strides)
        uneven = [size for size in self.resolutions if size % stride]
        if uneven:
            yield (
                f"resolution {', '.join(map(str, uneven))} of {self.name}: the strides multiply to "
                f"{stride}, so that the last pixels of some maps count less than the others (a "
                f"multiple of {stride} avoids it)"
            )

    def least(self, choice: str) -> int:
        """Depthwise convolutions of size 0 are absent."""
        return 0 if choice.endswith("kernel") else 1

    @property
    def own_choices(self) -> dict[str, tuple[int, ...]]:
        """Widths from stem to head, then depths, kernels and expansions."""
        return {
            "stem_width": self.stem_widths,
            **_numbered("width", self.stage_widths),
            "head_width": self.head_widths,
            **_numbered("depth", self.stage_depths),
            **_numbered("start_kernel", self.stage_start_kernels),
            **_numbered("kernel", self.stage_kernels),
            **_numbered("expansion", self.stage_expansions),
        }

    @property
    def text_form(self) -> dict[str, tuple[str, ...]]:
        """Texts such as `stem32_w16-24_d1-2_k3-5_e1-6_head1280_r224`."""
        by_prefix = {
            "w": ("width", self.stage_widths),
            "d": ("depth", self.stage_depths),
            "s": ("start_kernel", self.stage_start_kernels),
            "k": ("kernel", self.stage_kernels),
            "e": ("expansion", self.stage_expansions),
        }
        return {
            "stem": ("stem_width",),
            **{
                prefix: tuple(_numbered(name, values))
                for prefix, (name, values) in by_prefix.items()
                if values
            },
            "head": ("head_width",),
            "r": ("resolution",),
        }

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Stem, stages (which also depend on the width before), last convolution with head."""
        count = len(self.stage_widths)
        widths = ["stem_width", *(f"stage{i + 1}_width" for i in range(count))]
        # The depth last, so that architectures with equal first blocks are sorted together.
        starts = ["start_kernel"] * bool(self.stage_start_kernels)
        own = [*starts, "kernel", "expansion", "depth"]
        stages = [
            Part(
                (widths[i], widths[i + 1], *(f"stage{i + 1}_{name}" for name in own)),
                partial(self._stage, i),
                f"stage{i + 1}",
            )
            for i in range(count)
        ]
        head = Part((widths[-1], "head_width"), self._head)
        return (Part(("stem_width",), self._stem), *stages, head)

    def make_network(self, blocks: Sequence[Any], layers: Layers | None = None) -> MobileNetwork:
        """See `SearchSpace`."""
        from edgesearch.families.mobile.network import MobileNetwork
        from edgesearch.space.network import PLAIN

        tensorflow = self.padding == "tensorflow"
        return MobileNetwork(blocks, layers or PLAIN, tensorflow, self.norm_eps)

    @property
    def _by_stage(self) -> dict[str, Sequence[Any]]:
        """The fields with an entry for every stage."""
        fields: dict[str, Sequence[Any]] = {
            "stage_strides": self.stage_strides,
            "stage_widths": self.stage_widths,
            "stage_depths": self.stage_depths,
            "stage_kernels": self.stage_kernels,
            "stage_expansions": self.stage_expansions,
        }
        if self.stage_start_kernels:
            fields["stage_start_kernels"] = self.stage_start_kernels
        return fields

    def _starts(self, stage: int) -> tuple[int, ...]:
        return self.stage_start_kernels[stage] if self.stage_start_kernels else (0,)

    def _stem(self, resolution: int, width: int) -> tuple[MobileBlock, ...]:
        return (
            MobileBlock(
                f"stem_{self.stem}",
                self.in_channels,
                self._stem_channels(width),
                STEM_STRIDES[self.stem],
                resolution,
                self.activation,
                # A fused stem has three strided convolutions, on maps of different sizes.
                asymmetric=self._is_asymmetric(0 if self.stem == "fused" else resolution),
            ),
        )

    def _stem_channels(self, width: int) -> int:
        return 2 * width if self.stem == "fused" else width

    def _stage(
        self,
        stage: int,
        resolution: int,
        before: int,
        width: int,
        *inner: int,
    ) -> tuple[MobileBlock, ...]:
        """The blocks of a stage (from 0) after a stage or stem of width `before`."""
        *starts, kernel, expansion, depth = inner
        hw, channels = self._hw_before(stage, resolution), before
        if stage == 0:
            channels = self._stem_channels(before)
        activation = self.activation if kernel or expansion > 1 else ""
        own = activation, expansion, (starts or [0])[0], kernel
        stride = self.stage_strides[stage]
        asymmetric = stride > 1 and self._is_asymmetric(hw)
        first = MobileBlock(
            "inverted", channels, width, stride, hw, *own, asymmetric, stage=stage + 1
        )
        rest = MobileBlock("inverted", width, width, 1, first.out_hw, *own, stage=stage + 1)
        return (first,) + (rest,) * (depth - 1)

    def _head(self, resolution: int, before: int, width: int) -> tuple[MobileBlock, ...]:
        hw = self._hw_before(len(self.stage_widths), resolution)
        last = MobileBlock("last", before, width, 1, hw, self.activation)
        return (last, MobileBlock("head", width, width, 1, hw))

    def _hw_before(self, stage: int, resolution: int) -> int:
        """Input height and width of a stage, or of the last convolution after all."""
        strides = STEM_STRIDES[self.stem], *self.stage_strides[:stage]
        return strided(resolution, math.prod(strides))

    def _is_asymmetric(self, hw: int) -> bool:
        return self.padding == "tensorflow" and hw % 2 == 0


def _numbered(name: str, by_stage: Sequence[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"stage{number}_{name}": values for number, values in enumerate(by_stage, 1)}
