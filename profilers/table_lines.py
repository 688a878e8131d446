"""The lines of a latency table that are not measurements, checked as they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from profilers.measure import MeasureConfig
from profilers.sessions import SessionFacts

_FIGURES = ("offset_ms", "scale", "p95_ratio", "fit_mape")
_LATER_FIGURES = ("per_block_ms", "median_ratio")
"""Earlier versions wrote none of these."""


def read_correction(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a line of type `correction` says.

    Raises:
        ValueError: If something is missing or of the wrong kind.
    """
    _check(values, "space_hash", _is_text(values.get("space_hash")), "a text")
    for name in _FIGURES:
        _check(values, name, _is_number(values.get(name)), "a number")
    for name in _LATER_FIGURES:
        _check(values, name, _is_number(values.get(name, 0.0)), "a number")
    left_out = values.get("loo_mape")
    _check(values, "loo_mape", left_out is None or _is_number(left_out), "a number")
    _check(values, "networks", _is_count(values.get("networks")), "a whole number from 1 on")
    for name in ("rounds", "last_session"):
        _check(values, name, _is_count(values.get(name, 1)), "a whole number from 1 on")
    checked = values.get("validation")
    if checked is not None:
        names = ("n", "mape", "worst")
        is_whole = _is_map(checked) and all(_is_number(checked.get(name)) for name in names)
        _check(values, "validation", is_whole, f"an object with the numbers {', '.join(names)}")
    return {name: value for name, value in values.items() if name != "type"}


def read_merge(values: Mapping[str, Any]) -> SessionFacts:
    """Return what a line of type `merge` says.

    Raises:
        ValueError: If something is missing or of the wrong kind.
    """
    _check(values, "session", _is_count(values.get("session")), "a whole number from 1 on")
    _check(values, "source", _is_text(values.get("source")), "a text")
    return SessionFacts(values["session"], values["source"])


def read_session(values: Mapping[str, Any]) -> tuple[SessionFacts, MeasureConfig]:
    """Return what a line of type `session` says, and how the session was measured.

    Raises:
        ValueError: If something is missing or of the wrong kind; or a TypeError or ProfilerError
            about how it was measured.
    """
    _check(values, "session", _is_count(values.get("session")), "a whole number from 1 on")
    _check(values, "measure", _is_map(values.get("measure")), "an object")
    began, fingerprint = values.get("began"), values.get("fingerprint") or {}
    _check(values, "began", began is None or _is_text(began), "a text")
    _check(values, "fingerprint", _is_map(fingerprint), "an object")
    config = MeasureConfig(**values["measure"])
    return SessionFacts(values["session"], None, began, fingerprint), config


def _check(values: Mapping[str, Any], name: str, is_right: bool, required: str) -> None:
    if not is_right:
        raise ValueError(f"{name} {values.get(name)!r}, which must be {required}")


def _is_map(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)  # type: ignore[arg-type]
