"""Lines of a table that are well-formed JSON, and yet wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices import Fingerprint
from profilers import LatencyTable, MeasureConfig, TableError, describe_table

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
ROUND = {"key": "a", "session": 1, "round": 1, "samples_ms": [1.0]}
LEFT_OUT = object()


def refused(path: Path, line: int, message: str) -> None:
    with pytest.raises(TableError) as caught:
        LatencyTable.load(path)
    assert caught.value.required.startswith(str(path))
    assert f"line {line}: " in caught.value.found
    assert message in caught.value.found


def changed(line: Line, field: str, value: Any) -> Line:
    found = {**line, field: value}
    if value is LEFT_OUT:
        del found[field]
    return found


@pytest.mark.parametrize("field", ["offset_ms", "scale", "p95_ratio", "fit_mape", "networks"])
@pytest.mark.parametrize("value", [LEFT_OUT, None, "1", [1.0], True])
def test_a_correction_without_a_figure_is_named(
    field: str, value: Any, write: Write, correction: Callable[..., Line]
) -> None:
    refused(write(ROUND, changed(correction(), field, value)), 3, f"{field} ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("networks", 6.5),
        ("loo_mape", "small"),
        ("per_block_ms", None),
        ("median_ratio", [1.0]),
        ("rounds", 0),
        ("rounds", "12"),
        ("space_hash", 7),
        ("space_hash", LEFT_OUT),
        ("validation", 0.1),
        ("validation", {}),
        ("validation", {"n": 24, "mape": 0.02}),
        ("validation", {"n": 24, "mape": "small", "worst": 0.1}),
    ],
)
def test_further_figures_of_a_correction_are_figures(
    field: str, value: Any, write: Write, correction: Callable[..., Line]
) -> None:
    refused(write(changed(correction(), field, value)), 2, f"{field} ")


def test_a_correction_of_an_earlier_version_has_fewer(
    write: Write, correction: Callable[..., Line]
) -> None:
    said = describe_table(LatencyTable.load(write(ROUND, correction())))
    assert "are fitted to 6 networks: mean error 1.0%; not validated" in said


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
    refused(write(changed(SESSION, field, value), ROUND), 2, f"{field} ")


@pytest.mark.parametrize("measure", [{"rounds": "many"}, {"rounds": 0}, {"interval": "wide"}])
def test_settings_of_a_session_are_checked(measure: Line, write: Write) -> None:
    refused(write({**SESSION, "measure": measure}, ROUND), 2, "")


@pytest.mark.parametrize(
    ("field", "value"), [("session", None), ("session", True), ("source", LEFT_OUT), ("source", 7)]
)
def test_a_merge_is_named(field: str, value: Any, write: Write) -> None:
    refused(write(changed(MERGE, field, value), ROUND), 2, f"{field} ")


@pytest.mark.parametrize("found", [[1], [1, 2, 3], ["low", "high"], 5, "12", [1.0, None]])
def test_a_frequency_of_the_header_is_a_pair(
    found: Any, write: Write, fingerprint: Fingerprint
) -> None:
    path = write(ROUND, fingerprint={**fingerprint.to_dict(), "frequency_khz": found})
    message = "must name its device and fingerprint in line 1; found: .*frequency_khz"
    with pytest.raises(TableError, match=message):
        LatencyTable.load(path)


@pytest.mark.parametrize("found", ["this machine", 5, None])
def test_a_fingerprint_of_the_header_is_an_object(
    found: Any, write: Write, fingerprint: Fingerprint
) -> None:
    found = list(fingerprint.to_dict()) if found is None else found
    with pytest.raises(TableError, match="must name its device and fingerprint in line 1"):
        LatencyTable.load(write(ROUND, fingerprint=found))


def test_what_is_right_is_read(write: Write, correction: Callable[..., Line]) -> None:
    validation = {"n": 24, "mape": 0.02, "worst": 0.1, "bias": 0.0}
    whole = correction(rounds=12, loo_mape=0.02, per_block_ms=0, validation=validation)
    path = write(MERGE, SESSION, ROUND, whole)
    table = LatencyTable.load(path)
    (only,) = table.sessions
    assert (only.merged_from, only.began) == ("hers.jsonl", SESSION["began"])
    assert "2.0% (worst 10.0%) on 24 others" in describe_table(table)
