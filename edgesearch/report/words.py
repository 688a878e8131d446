"""Figures of the report in words."""

from __future__ import annotations

import math


def ms(value: float | None) -> str:
    """A latency, such as "0.181 ms"."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f} ms" if value < 10 else f"{value:.1f} ms"


def percent(share: float | None) -> str:
    """A share in 0 … 1, such as "96.1 %"."""
    return "–" if share is None else f"{share:.1%}".replace("%", " %")


def count(value: float | None) -> str:
    """A whole number, such as "209,776"."""
    return "–" if value is None else f"{value:,.0f}"


def millions(value: float | None) -> str:
    """A large number with three digits, such as "9.00 M"."""
    if value is None:
        return "–"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def size(number: float) -> str:
    """A number of bytes, such as "1.4 MB"."""
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= bytes_:
            return f"{number / bytes_:.3g} {unit}"
    return f"{number:.0f} bytes"


def duration(seconds: float) -> str:
    """A time, such as "2 min 5 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listed(texts: list[str]) -> str:
    """Such as "a, b and c"."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
