"""Times, sizes and latencies in words."""

from __future__ import annotations


def duration_words(seconds: float) -> str:
    """A duration, as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def counted(count: int, noun: str) -> str:
    """A number with a noun whose plural ends in s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def ms_words(ms: float) -> str:
    """A latency with three digits, never as a power of ten that is longer than its digits."""
    return f"{ms:,.0f} ms" if ms >= 1000 else f"{ms:.3g} ms"


def size_words(count: float) -> str:
    """A number of bytes."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,.0f} bytes"
