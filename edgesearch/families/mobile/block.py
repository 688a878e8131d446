"""The blocks of mobile networks and their costs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

from edgesearch.space.block import strided

STEMS = ("conv", "fused")
"""A 3×3 convolution of stride 2, or the first three stages of MobileNetV4-Conv-Small."""
STEM_STRIDES = {"conv": 2, "fused": 8}


class Convolution(NamedTuple):
    """A convolution of a block, with the normalisation behind it.

    Attributes:
        name: Of its module in an inverted bottleneck; "" elsewhere.
        activated: Whether the activation of the space follows the normalisation.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    activated: bool = True


@dataclass(frozen=True)
class MobileBlock:
    """See `Block`.

    Attributes:
        kind: "stem_conv", "stem_fused" (see `STEMS`), "inverted" (universal inverted bottleneck),
            "last" (the 1×1 convolution before pooling) or "head" (global average pooling).
        in_channels: Input channels.
        out_channels: Output channels; of a fused stem twice its width.
        stride: Product of the strides.
        hw: Input height and width, in pixels.
        activation: Activation of the space; "" if the block has none.
        expansion: Ratio of the inner channels to the input channels; no expansion if 1.
        start_kernel: Kernel size of the depthwise convolution before the expansion; none if 0.
        kernel: Kernel size of the depthwise convolution behind the expansion; none if 0.
        asymmetric: Strided convolutions get one zero less before the first pixel than behind the
            last.
        stage: Number of its stage from 1; no property of the block itself.
    """

    kind: str
    in_channels: int
    out_channels: int
    stride: int
    hw: int
    activation: str = ""
    expansion: int = 1
    start_kernel: int = 0
    kernel: int = 0
    asymmetric: bool = False
    stage: int = field(default=0, compare=False)

    @property
    def key(self) -> str:
        """See `Block`."""
        if self.is_last:
            return f"head/in{self.in_channels}/hw{self.hw}"
        inner = ""
        if self.kind == "inverted":
            inner = f"/e{self.expansion}/dw{self.start_kernel}-{self.kernel}"
        ends = f"in{self.in_channels}/out{self.out_channels}{inner}/s{self.stride}/hw{self.hw}"
        after = f"/{self.activation}" * bool(self.activation) + "/asym" * self.asymmetric
        return f"{self.kind}/{ends}{after}"

    @property
    def out_hw(self) -> int:
        """Output height and width, in pixels."""
        return 1 if self.is_last else strided(self.hw, self.stride)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the output; (D,) of the head."""
        return (self.out_channels, *([] if self.is_last else [self.out_hw] * 2))

    @property
    def is_first(self) -> bool:
        """Whether it is a stem."""
        return self.kind.startswith("stem")

    @property
    def is_last(self) -> bool:
        """Whether it is the pooling."""
        return self.kind == "head"

    @property
    def is_residual(self) -> bool:
        """Whether the input is added to the output: where their shapes are equal."""
        same = self.stride == 1 and self.in_channels == self.out_channels
        return same and self.kind == "inverted"

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """The convolutions in order."""
        c_in, c_out = self.in_channels, self.out_channels
        if self.kind == "stem_conv":
            return (Convolution("", c_in, c_out, 3, 2),)
        if self.kind == "stem_fused":
            width = c_out // 2
            return (
                Convolution("", c_in, width, 3, 2),
                Convolution("", width, width, 3, 2),
                Convolution("", width, width),
                Convolution("", width, 3 * width, 3, 2),
                Convolution("", 3 * width, c_out),
            )
        if self.kind == "last":
            return (Convolution("", c_in, c_out),)
        if self.kind == "head":
            return ()
        inner = c_in * self.expansion
        # MobileNetV4: the middle convolution has the stride, or else the first.
        first = 1 if self.kernel else self.stride
        found = [
            Convolution("start", c_in, c_in, self.start_kernel, first, True, False),
            Convolution("expand", c_in, inner),
            Convolution("middle", inner, inner, self.kernel, self.stride, True),
            Convolution("project", inner, c_out, activated=False),
        ]
        absent = {"start": not self.start_kernel, "expand": self.expansion == 1}
        absent["middle"] = not self.kernel
        return tuple(each for each in found if not absent.get(each.name))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolutions per image."""
        return sum(
            _weights(each) * side**2
            for each, side in zip(self.convolutions, self._sides(), strict=True)
        )

    @property
    def params(self) -> int:
        """Convolution weights, and scale and shift of the normalisations."""
        return sum(_weights(each) + 2 * each.out_channels for each in self.convolutions)

    @property
    def live_values(self) -> int:
        """Peak number of values of one image that are live while the block runs.

        Counted over the exported inference graph: normalisation and padding folded into the
        convolutions, activation and addition in place; without weights and kernels' memory.
        """
        given = self.in_channels * self.hw**2
        if self.is_last:
            return given + self.out_channels
        sides = zip(self.convolutions, self._sides(), strict=True)
        chain = [given, *(each.out_channels * side**2 for each, side in sides)]
        shortcut = [0, *[given * self.is_residual] * len(chain)]
        pairs = itertools.pairwise(chain)
        return max(a + b + kept for (a, b), kept in zip(pairs, shortcut, strict=False))

    def _sides(self) -> list[int]:
        """Output height and width of each convolution."""
        sides, side = [], self.hw
        for each in self.convolutions:
            side = strided(side, each.stride)
            sides.append(side)
        return sides


def _weights(conv: Convolution) -> int:
    inputs = 1 if conv.depthwise else conv.in_channels
    return inputs * conv.out_channels * conv.kernel**2
