"""One line of a latency table: the samples of a round, or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KINDS = ("block", "network", "validation", "overhead", "reference", "anchor")

NETWORK_KINDS = ("network", "validation")
"""Whole networks: those that a correction is fitted to, and those that it is judged by."""
ANCHOR = "anchor/"
"""Begins the key of a network that was measured again, only to compare sessions."""


@dataclass(frozen=True)
class LatencyRecord:
    """What one round, or a failure, gave for one key.

    Args:
        key: What was measured.
        kind: One of `KINDS`.
        session: Number of the run of the profiler, from 1.
        samples_ms: Durations of the round's runs but the first; None for an error.
        round: Number of the round of this key, from 1; None for an error.
        error: Why there are no samples; None if there are.
        architecture: That of a whole network, as plain JSON values.
        space_hash: Hash of the search space that a network is of.
        cold_ms: Duration of the round's first run; None for an error, or where it was not kept.
        stretch: How often the reference had been measured in the session before; known from the
            order of the lines, and not written.

    Raises:
        ValueError: If the fields contradict each other.
    """

    key: str
    kind: str
    session: int
    samples_ms: tuple[float, ...] | None = None
    round: int | None = None
    error: str | None = None
    architecture: dict[str, Any] | None = None
    space_hash: str | None = None
    cold_ms: float | None = None
    stretch: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or self.kind not in KINDS:
            raise ValueError(f"key {self.key!r} of kind {self.kind!r}")
        if not _is_number(self.session):
            raise ValueError(f"session {self.session!r}")
        if (self.samples_ms is None) == (self.error is None):
            raise ValueError("exactly one of samples_ms and error is required")
        if self.error is not None and not isinstance(self.error, str):
            raise ValueError(f"error {self.error!r}")
        if self.architecture is not None and not isinstance(self.architecture, Mapping):
            raise ValueError(f"architecture {self.architecture!r}")
        if self.samples_ms is not None:
            if not _is_number(self.round):
                raise ValueError(f"round {self.round!r}")
            if not self.samples_ms or not all(map(_is_duration, self.samples_ms)):
                raise ValueError(f"samples_ms {self.samples_ms!r}")
            if self.cold_ms is not None and not _is_duration(self.cold_ms):
                raise ValueError(f"cold_ms {self.cold_ms!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the line as plain JSON values; blocks carry no type."""
        values: dict[str, Any] = {"key": self.key, "session": self.session}
        if self.kind != "block":
            values = {"type": self.kind, **values}
        if self.samples_ms is None:
            values["error"] = self.error
        else:
            # A clock counts nanoseconds: further digits are noise.
            rounded = [round(sample, 6) for sample in self.samples_ms]
            values.update(round=self.round, samples_ms=rounded)
            if self.cold_ms is not None:
                values["cold_ms"] = round(self.cold_ms, 6)
        if self.kind in NETWORK_KINDS:
            values.update(architecture=self.architecture, space_hash=self.space_hash)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LatencyRecord:
        """Read what `to_dict` returned.

        Raises:
            ValueError: If fields are missing, unknown or contradict each other.
        """
        fields = dict(values)
        kind = fields.pop("type", "block")
        samples_ms = fields.pop("samples_ms", None)
        try:
            samples = None if samples_ms is None else tuple(samples_ms)
            return cls(kind=kind, samples_ms=samples, **fields)
        except TypeError as error:
            raise ValueError(str(error)) from error


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_duration(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]
