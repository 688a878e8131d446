"""What the C library does with memory that networks free."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, as in malloc.h."""
_KEPT = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_THRESHOLD: 1 << 30}
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20}
"""Bytes that glibc's own, moving thresholds come to in a process that frees large tensors."""
_within = 0


@contextmanager
def memory_kept() -> Iterator[None]:
    """Keep freed memory for the next step, and give it back to the system at the end.

    glibc returns large tensors to the system as soon as they are freed; the next step gets them
    again, page by page and zeroed: up to half of its time, as `benchmarks/kept_memory.py` shows.
    Peak memory grows somewhat. Other C libraries are left as they are. May be nested.
    """
    global _within
    library = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
    _within += 1
    if library is not None and _within == 1:
        _set(library, _KEPT)
    try:
        yield
    finally:
        _within -= 1
        if library is not None and not _within:
            _set(library, _USUAL)
            library.malloc_trim(0)


def _set(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        library.mallopt(parameter, value)
