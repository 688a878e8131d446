"""The blocks of residual networks and their costs."""

from __future__ import annotations

from dataclasses import dataclass

from edgesearch.space.block import strided

BOTTLENECK_EXPANSION = 4


@dataclass(frozen=True)
class ResNetBlock:
    """See `Block`.

    Attributes:
        kind: "stem_imagenet" (7×7 convolution of stride 2, then 3×3 max-pooling of stride 2),
            "stem_small" (3×3 convolution), "basic", "bottleneck" or "head" (global average
            pooling). Batch normalisation follows every convolution.
        in_channels: Input channels.
        mid_channels: Inner channels (equal to `out_channels` in stems and heads).
        out_channels: Output channels.
        stride: Stride of the 3×3 (in the ImageNet stem: 7×7) convolution.
        hw: Input height and width, in pixels.
        projection: The shortcut is a 1×1 convolution instead of the identity.
    """

    kind: str
    in_channels: int
    mid_channels: int
    out_channels: int
    stride: int
    hw: int
    projection: bool = False

    @property
    def key(self) -> str:
        """See `Block`."""
        if self.is_last:
            return f"head/in{self.in_channels}/hw{self.hw}"
        channels = f"in{self.in_channels}/mid{self.mid_channels}/out{self.out_channels}"
        if self.is_first:
            channels = f"in{self.in_channels}/out{self.out_channels}"
        shortcut = "/proj" if self.projection else ""
        return f"{self.kind}/{channels}/s{self.stride}/hw{self.hw}{shortcut}"

    @property
    def out_hw(self) -> int:
        """Output height and width, in pixels."""
        if self.is_last:
            return 1
        after_stride = strided(self.hw, self.stride)
        return strided(after_stride, 2) if self.kind == "stem_imagenet" else after_stride

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
        """Whether it is a head."""
        return self.kind == "head"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolutions per image."""
        inside = strided(self.hw, self.stride) ** 2
        return sum(
            c_in * c_out * kernel**2 * (self.hw**2 if at_input else inside)
            for c_in, c_out, kernel, at_input in self._convolutions()
        )

    @property
    def params(self) -> int:
        """Convolution weights, and scale and shift of the normalisations."""
        return sum(
            c_in * c_out * kernel**2 + 2 * c_out for c_in, c_out, kernel, _ in self._convolutions()
        )

    @property
    def live_values(self) -> int:
        """Peak number of values of one image that are live while the block runs.

        Counted over the exported inference graph: shortcut first, normalisation folded into the
        convolutions, activation and addition in place; without weights and kernels' memory.
        """
        inside = strided(self.hw, self.stride) ** 2
        given, out = self.in_channels * self.hw**2, self.out_channels * self.out_hw**2
        if self.is_last:
            return given + self.out_channels
        if self.is_first:
            convolved = self.out_channels * inside
            return max(given + convolved, convolved + out if self.out_hw**2 < inside else 0)
        # Outputs of the convolutions in turn; the shortcut stays live until the end.
        at_input = self.mid_channels * self.hw**2 if self.kind == "bottleneck" else 0
        chain = [self.mid_channels * inside, out]
        if at_input:
            chain.insert(0, at_input)
        shortcut = out if self.projection else given
        first = (given if self.projection else 0) + chain[0]
        pairs = (a + b for a, b in zip(chain, chain[1:], strict=False))
        return shortcut + max(first, *pairs)

    def _convolutions(self) -> list[tuple[int, int, int, bool]]:
        """(input channels, output channels, kernel size, output at input size) of each."""
        c_in, c_mid, c_out = self.in_channels, self.mid_channels, self.out_channels
        main = {
            "stem_imagenet": [(c_in, c_out, 7, False)],
            "stem_small": [(c_in, c_out, 3, False)],
            "basic": [(c_in, c_mid, 3, False), (c_mid, c_out, 3, False)],
            "bottleneck": [
                (c_in, c_mid, 1, True),
                (c_mid, c_mid, 3, False),
                (c_mid, c_out, 1, False),
            ],
            "head": [],
        }[self.kind]
        return main + ([(c_in, c_out, 1, False)] if self.projection else [])
