"""Rows of a table, read back with a reader of CSV."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices import DeviceSpec, Fingerprint
from profilers import LatencyTable, table_csv
from profilers.table_csv import COLUMNS

Write = Callable[..., Path]
Rounds = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def table(write: Write, rounds: Rounds, fingerprint: Fingerprint) -> LatencyTable:
    network = {"kind": "network", "about": {"n": 1}}
    lines = [
        *rounds("overhead", [0.5], [0.5], kind="overhead"),
        *rounds("reference", [1.0], [1.0], kind="reference"),
        *rounds("a", [2.0, 3.0, 9.0], [2.0, 4.0, 5.0], [2.0, 5.0, 6.0], cold_ms=7.0),
        *rounds("network/n", [8.0], [9.0], [10.0], **network),
        *rounds("network/n", [80.0], **network, anchor=True),
        {"kind": "block", "key": 'b, "quoted"', "session": 1, "error": "no, never\nagain"},
        {"kind": "block", "key": "a", "session": 1, "error": "later"},
    ]
    machine = replace(fingerprint, chip="Orin, 8 cores", gpu="Orin", driver="L4T 36.4")
    return LatencyTable.load(write(*lines, fingerprint=machine.to_dict()))


def read(text: str) -> dict[str, dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text))
    found = {row["key"]: row for row in reader}
    assert tuple(reader.fieldnames or ()) == COLUMNS
    assert None not in [value for row in found.values() for value in row.values()]
    return found


def test_figures_are_those_of_the_table(table: LatencyTable) -> None:
    row = read(table_csv(table))["a"]
    assert (row["kind"], row["rounds"], row["rounds_made"]) == ("block", "3", "3")
    figures = {name: float(row[name]) for name in COLUMNS if name.endswith("_ms") and row[name]}
    assert figures == {
        "low_quantile_ms": table.low_quantile_ms("a"),
        "cold_ms": 7.0,
        "median_ms": 4.0,
        "p95_ms": pytest.approx(table.percentile_ms("a", 95)),
        "median_low_ms": 3.0,
        "median_high_ms": 5.0,
    }
    assert figures["low_quantile_ms"] == 1.5


def test_keys_come_kind_by_kind_without_anchors(table: LatencyTable) -> None:
    found = read(table_csv(table))
    assert {key: row["kind"] for key, row in found.items()} == {
        "a": "block",
        'b, "quoted"': "block",
        "network/n": "network",
        "overhead": "overhead",
        "reference": "reference",
    }
    assert list(found) == ["a", 'b, "quoted"', "network/n", "overhead", "reference"]


def test_a_key_that_failed_has_its_error(table: LatencyTable) -> None:
    found = read(table_csv(table))
    assert found['b, "quoted"']["error"] == "no, never\nagain"
    assert found['b, "quoted"']["rounds"] == "0"
    assert found['b, "quoted"']["median_ms"] == ""
    assert (found["a"]["error"], found["a"]["median_ms"]) == ("later", "4.0")


def test_each_row_says_what_it_is_of(table: LatencyTable) -> None:
    for row in read(table_csv(table)).values():
        assert (row["device"], row["runtime"]) == ("local-cpu", "onnxruntime")
        assert (row["precision"], row["batch"], row["threads"]) == ("fp32", "1", "1")
        assert (row["provider"], row["runtime_version"]) == ("", "1.0")
        assert (row["chip"], row["gpu"], row["driver"]) == ("Orin, 8 cores", "Orin", "L4T 36.4")


def test_predictions_stand_beside_what_was_measured(table: LatencyTable) -> None:
    found = read(table_csv(table, {"network/n": 9.12345678, "other": 1.0}))
    assert (found["network/n"]["predicted_ms"], found["network/n"]["median_ms"]) == (
        "9.123457",
        "9.0",
    )
    assert found["a"]["predicted_ms"] == ""


def test_tables_of_several_devices_go_into_one_file(
    table: LatencyTable, write: Write, rounds: Rounds, spec: DeviceSpec
) -> None:
    other = write(*rounds("a", [1.0]), device=replace(spec, name="board").to_dict())
    texts = [table_csv(table), table_csv(LatencyTable.load(other))]
    joined = texts[0] + texts[1].split("\n", 1)[1]
    found = [(row["device"], row["key"]) for row in csv.DictReader(io.StringIO(joined))]
    assert ("local-cpu", "a") in found
    assert ("board", "a") in found
    assert len(found) == 6


def test_an_empty_table_has_only_names(write: Write) -> None:
    assert table_csv(LatencyTable.load(write())) == ",".join(COLUMNS) + "\n"
