"""Whether the largest network of a space fits in memory."""

from __future__ import annotations

from devices.machine import memory_bytes
from edgesearch.errors import SpaceError
from edgesearch.space import SearchSpace

_GIB = 2**30
_FP32_BYTES = 4


def require_memory(space: SearchSpace, copies: int, held_bytes: int | None = None) -> None:
    """Refuse a space whose largest network is too large for a machine.

    Args:
        space: The space.
        copies: How often its weights are in memory, in single precision; training adds gradients,
            momentum and the key encoder.
        held_bytes: Memory of the device; that of this machine if None.

    Raises:
        SpaceError: The weights take more than all memory.
    """
    held = memory_bytes() if held_bytes is None else held_bytes
    params = space.params(space.largest)
    needed = params * copies * _FP32_BYTES
    if 0 < held < needed:
        times = f", {copies} times" if copies > 1 else ""
        raise SpaceError(
            f"{needed / _GIB:,.1f} GiB of memory for the {params / 1e6:,.0f} million parameters of "
            f"the largest network of the space {space.name!r}{times}",
            f"{held / _GIB:,.1f} GiB in all",
            "Take the largest widths, depths or expansions out of the space.",
        )
