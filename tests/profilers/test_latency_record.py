"""Lines of a table."""

import json
from dataclasses import replace
from typing import Any

import pytest

from profilers.latency_record import LatencyRecord


@pytest.mark.parametrize(
    "record",
    [
        LatencyRecord("a", "block", 1, (0.1234567,), None, 2),
        LatencyRecord("a", "block", 1, (0.5,), 0.75, 2),
        LatencyRecord("a", "block", 2, error="why"),
        LatencyRecord("n", "network", 1, (1.0, 2.0), None, 1, about={"depths": [1, 2]}),
        LatencyRecord("n", "network", 1, (1.0, 2.0), None, 1, anchor=True),
        LatencyRecord("n", "network", 1, error="why", about={}),
    ],
)
def test_round_trip_through_json(record: LatencyRecord) -> None:
    found = LatencyRecord.from_dict(json.loads(json.dumps(record.to_dict())))
    assert found.to_dict() == record.to_dict()
    if record.samples_ms:
        # Nanoseconds are all that a clock gives.
        assert found.samples_ms == pytest.approx(record.samples_ms, abs=5e-7)
    assert found.cold_ms == record.cold_ms
    assert replace(found, samples_ms=None, error="") == replace(record, samples_ms=None, error="")


GOOD = {"kind": "block", "key": "a", "session": 1, "round": 1, "samples_ms": [1.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error": "why"}, "exactly one of samples_ms and error"),
        ({"samples_ms": None}, "exactly one of samples_ms and error"),
        ({"samples_ms": []}, "samples_ms"),
        ({"samples_ms": [float("nan")]}, "samples_ms"),
        ({"samples_ms": [float("inf")]}, "samples_ms"),
        ({"samples_ms": [0.0]}, "samples_ms"),
        ({"samples_ms": ["1"]}, "samples_ms"),
        ({"round": 0}, "round 0"),
        ({"round": None}, "round None"),
        ({"session": 0}, "session 0"),
        ({"session": "1"}, "session '1'"),
        ({"kind": 3}, "kind 3"),
        ({"about": "it"}, "about 'it'"),
        ({"key": 3}, "key 3"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyRecord.from_dict({**GOOD, **change})
