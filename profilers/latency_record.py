"""A measured line of a latency table: the samples of a round, or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from profilers.measure import without_waiting


@dataclass(frozen=True)
class LatencyRecord:
    """The result of one round of one key, or its error.

    Attributes:
        key: What was measured.
        kind: See `Workload`; for the profiler's own models it is their key.
        session: Number of the session, from 1.
        samples_ms: Durations of the round's runs except the first; None for an error.
        cold_ms: Duration of the round's first run; None if unknown or interrupted.
        round: Number of the key's round, from 1; None for an error.
        error: Why there are no samples.
        anchor: Whether it was measured again only to compare sessions.
        about: Data of the workload.
        waited_ms: For how long other programs interrupted each sample, in a round in which
            they interrupted all; otherwise None.
        others: Of the reference: processors that other programs used since it was measured before.
        crowded: Of the reference: whether those were more than there were to spare.
        stretch: Number of reference measurements in the session so far; derived from the order of
            the lines, not written.

    Raises:
        ValueError: If the fields contradict each other.
    """

    key: str
    kind: str
    session: int
    samples_ms: tuple[float, ...] | None = None
    cold_ms: float | None = None
    round: int | None = None
    error: str | None = None
    anchor: bool = False
    about: Mapping[str, Any] | None = None
    waited_ms: tuple[float, ...] | None = None
    others: float | None = None
    crowded: bool = False
    stretch: int = 0

    def __post_init__(self) -> None:
        samples_ms = self.samples_ms or ()
        has_samples = bool(samples_ms) and all(map(_is_duration, samples_ms))
        is_right = {
            "key": isinstance(self.key, str),
            "kind": isinstance(self.kind, str),
            "session": is_count(self.session),
            "samples_ms": self.samples_ms is None or has_samples,
            "cold_ms": self.cold_ms is None or _is_duration(self.cold_ms),
            "waited_ms": self.waited_ms is None
            or (len(self.waited_ms) == len(samples_ms) and all(map(_is_duration, self.waited_ms))),
            "round": self.samples_ms is None or is_count(self.round),
            "others": self.others is None or _is_number(self.others),
            "crowded": isinstance(self.crowded, bool),
            "error": self.error is None or isinstance(self.error, str),
            "about": self.about is None or isinstance(self.about, Mapping),
        }
        for name in (name for name, right in is_right.items() if not right):
            raise ValueError(f"{name} {getattr(self, name)!r}")
        if (self.samples_ms is None) == (self.error is None):
            raise ValueError("exactly one of samples_ms and error is required")

    @property
    def net_ms(self) -> list[float]:
        """The samples, less the time for which they were interrupted."""
        return without_waiting(self.samples_ms or (), self.waited_ms or ())

    @property
    def fastest_ms(self) -> float:
        """The fastest run of the round."""
        return min(self.net_ms)

    def to_dict(self) -> dict[str, Any]:
        """The line as plain JSON values, without fields that are None."""
        # Clocks count nanoseconds: further digits are noise.
        samples_ms, waited_ms = (
            None if values is None else [round(ms, 6) for ms in values]
            for values in (self.samples_ms, self.waited_ms)
        )
        values = {
            "kind": self.kind,
            "key": self.key,
            "session": self.session,
            "round": self.round,
            "samples_ms": samples_ms,
            "cold_ms": None if self.cold_ms is None else round(self.cold_ms, 6),
            "waited_ms": waited_ms,
            "error": self.error,
            "anchor": self.anchor or None,
            "about": self.about,
            "others": None if self.others is None else round(self.others, 3),
            "crowded": self.crowded or None,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LatencyRecord:
        """Invert `to_dict`.

        Raises:
            ValueError: If fields are missing, unknown or contradict each other; or a TypeError.
        """
        unknown = sorted(set(values) - _FIELDS)
        if unknown:
            raise ValueError(f"no line of a table has {unknown[0]!r}")
        for name in ("kind", "key", "session"):
            if name not in values:
                raise ValueError(f"no {name!r}")
        names = ("samples_ms", "waited_ms")
        tuples = {name: tuple(values[name]) for name in names if values.get(name) is not None}
        return cls(**{**values, **tuples})


_FIELDS = {field.name for field in fields(LatencyRecord)} - {"stretch"}


def is_count(value: object) -> bool:
    """Whether a value is an integer from 1 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_duration(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


def _is_number(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]
