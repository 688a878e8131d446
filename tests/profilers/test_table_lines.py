"""Lines of a table that are well-formed JSON, and yet wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices import Fingerprint
from devices.errors import FileError
from profilers import LatencyTable, MeasureConfig, TableError

Write = Callable[..., Path]
Line = dict[str, Any]

SESSION = {
    "type": "session",
    "session": 1,
    "began": "2026-01-30T23:59:00Z",
    "measure": MeasureConfig().to_dict(),
    "fingerprint": {},
}
MERGE = {"type": "merge", "session": 1, "source": "hers.jsonl"}
ROUND = {"kind": "block", "key": "a", "session": 1, "round": 1, "samples_ms": [1.0]}
LEFT_OUT = object()


def refused(path: Path, line: int, message: str) -> None:
    message = f"a latency table, .*{path.name}; found: line {line}: .*{message}"
    with pytest.raises(FileError, match=message):
        LatencyTable.load(path)


def changed(line: Line, field: str, value: Any) -> Line:
    found = {**line, field: value}
    if value is LEFT_OUT:
        del found[field]
    return found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session", "1"),
        ("session", 0),
        ("session", [1]),
        ("session", LEFT_OUT),
        ("measure", LEFT_OUT),
        ("measure", "often"),
        ("began", 20260130),
        ("fingerprint", "this machine"),
        ("fingerprint", [["chip", "x"]]),
    ],
)
def test_a_session_is_named(field: str, value: Any, write: Write) -> None:
    refused(write(changed(SESSION, field, value), ROUND), 2, "")


@pytest.mark.parametrize("measure", [{"rounds": "many"}, {"rounds": 0}, {"interval": "wide"}])
def test_settings_of_a_session_are_checked(measure: Line, write: Write) -> None:
    refused(write({**SESSION, "measure": measure}, ROUND), 2, "")


@pytest.mark.parametrize(
    ("field", "value"), [("session", None), ("session", True), ("source", LEFT_OUT), ("source", 7)]
)
def test_a_merge_is_named(field: str, value: Any, write: Write) -> None:
    refused(write(changed(MERGE, field, value), ROUND), 2, "")


@pytest.mark.parametrize("found", [[1], [1, 2, 3], ["low", "high"], 5, "12", [1.0, None]])
def test_a_frequency_of_the_header_is_a_pair(
    found: Any, write: Write, fingerprint: Fingerprint
) -> None:
    path = write(ROUND, fingerprint={**fingerprint.to_dict(), "frequency_khz": found})
    message = "a device and a fingerprint in line 1 of .*; found: .*frequency_khz"
    with pytest.raises(TableError, match=message):
        LatencyTable.load(path)


@pytest.mark.parametrize("found", ["this machine", 5, None])
def test_a_fingerprint_of_the_header_is_an_object(
    found: Any, write: Write, fingerprint: Fingerprint
) -> None:
    found = list(fingerprint.to_dict()) if found is None else found
    with pytest.raises(TableError, match="a device and a fingerprint in line 1 of"):
        LatencyTable.load(write(ROUND, fingerprint=found))


def test_what_is_right_is_read(write: Write) -> None:
    (only,) = LatencyTable.load(write(MERGE, SESSION, ROUND)).sessions
    assert (only.merged_from, only.began) == ("hers.jsonl", SESSION["began"])
