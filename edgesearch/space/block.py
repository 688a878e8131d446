"""What networks are made of: blocks, the units of latency tables, and parts, which choices make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Block(Protocol):
    """One block with all that decides its cost; immutable and hashable."""

    @property
    def key(self) -> str:
        """The block's name in a latency table; it describes the block completely."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""

    @property
    def params(self) -> int:
        """Learnable parameters."""

    @property
    def live_values(self) -> int:
        """Most values of one image that are live at the same time while the block runs."""

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the output for one image: (C, H, W), or (D,) of the last block."""

    @property
    def is_first(self) -> bool:
        """Whether its input are the images."""

    @property
    def is_last(self) -> bool:
        """Whether its output are the features."""


@dataclass(frozen=True)
class Part:
    """Consecutive blocks that depend on the same choices.

    All settings of these choices are gone through, so that a part should depend on few.

    Attributes:
        choices: Names of the choices that decide its blocks, besides the resolution.
        blocks: Called with the resolution and the values of these choices; gives the blocks.
        stage: Name of the stage that the part is, None for a part between stages. Stages give the
            maps for detection and segmentation.
    """

    choices: tuple[str, ...]
    blocks: Callable[..., Sequence[Block]]
    stage: str | None = None
