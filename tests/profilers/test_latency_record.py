"""Lines of a table."""

import json
from typing import Any

import pytest

from profilers.latency_record import LatencyRecord


def test_a_block_has_no_type() -> None:
    record = LatencyRecord("conv/in3", "block", session=1, round=3, samples_ms=(0.25, 0.5))
    assert record.to_dict() == {
        "key": "conv/in3",
        "session": 1,
        "round": 3,
        "samples_ms": [0.25, 0.5],
    }


@pytest.mark.parametrize(
    "record",
    [
        LatencyRecord("a", "block", 1, (0.1234567,), 2),
        LatencyRecord("a", "block", 1, (0.5,), 2, cold_ms=0.75),
        LatencyRecord("a", "block", 2, error="why"),
        LatencyRecord("reference", "reference", 1, (1.0,), 1),
        LatencyRecord("overhead", "overhead", 1, (1.0,), 1),
        LatencyRecord("n", "network", 1, (1.0, 2.0), 1, None, {"depths": [1, 2]}, "cafe"),
        LatencyRecord("n", "network", 1, None, None, "why", {"depths": [1, 2]}, "cafe"),
    ],
)
def test_round_trip_through_json(record: LatencyRecord) -> None:
    found = LatencyRecord.from_dict(json.loads(json.dumps(record.to_dict())))
    assert found.to_dict() == record.to_dict()
    if record.samples_ms:
        # Nanoseconds are all that a clock gives.
        assert found.samples_ms == pytest.approx(record.samples_ms, abs=5e-7)
    assert found.cold_ms == record.cold_ms
    assert (found.kind, found.error, found.architecture, found.space_hash) == (
        record.kind,
        record.error,
        record.architecture,
        record.space_hash,
    )


GOOD = {"key": "a", "session": 1, "round": 1, "samples_ms": [1.0]}


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
        ({"samples_ms": 5}, "not iterable"),
        ({"round": 0}, "round 0"),
        ({"round": None}, "round None"),
        ({"session": 0}, "session 0"),
        ({"session": "1"}, "session '1'"),
        ({"type": "guess"}, "of kind 'guess'"),
        ({"key": 3}, "key 3"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyRecord.from_dict({**GOOD, **change})
