"""Blocks, the units of latency tables, and parts, the units of choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Block(Protocol):
    """A block with everything that decides its cost; immutable and hashable."""

    @property
    def key(self) -> str:
        """Name in a latency table; equal keys mean equal blocks."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""

    @property
    def params(self) -> int:
        """Learnable parameters."""

    @property
    def live_values(self) -> int:
        """Peak number of values of one image that are live while the block runs."""

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Output shape for one image: (C, H, W), or (D,) of the last block."""

    @property
    def is_first(self) -> bool:
        """Whether its input is the image."""

    @property
    def is_last(self) -> bool:
        """Whether its output is the feature vector."""


@dataclass(frozen=True)
class Part:
    """Consecutive blocks that depend on the same choices.

    `blocks` maps the resolution and the values of `choices` to the blocks. All combinations are
    enumerated, so a part should depend on few choices. Named stages give the feature maps for
    detection and segmentation.
    """

    choices: tuple[str, ...]
    blocks: Callable[..., Sequence[Block]]
    stage: str | None = None


def strided(hw: int, stride: int) -> int:
    """Height and width after a strided convolution or pooling with "same" padding."""
    return (hw - 1) // stride + 1
