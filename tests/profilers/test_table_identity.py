"""What a table may differ in from what is expected of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices import DeviceSpec, Fingerprint
from devices.spec import IDENTITY_FIELDS, MEASURED_FIELDS
from profilers import (
    LatencyTable,
    LocalMeter,
    Mismatch,
    TableMismatchError,
    Workload,
    refuse_other_runs,
)

Build = Callable[..., LatencyTable]

OTHER = {
    "name": "board",
    "runtime": "tensorrt",
    "provider": "cuda",
    "precision": "int8",
    "batch": 4,
    "threads": 2,
    "chip": "other",
    "instruction_sets": ("sse",),
    "runtime_version": "2.0",
    "gpu": "RTX",
    "driver": "570",
    "power_mode": "15W",
    "affinity": (7,),
    "processors": 0.5,
}


@pytest.fixture
def path(write: Callable[..., Path], fingerprint: Fingerprint) -> Path:
    known = replace(fingerprint, gpu="Orin", driver="540", power_mode="MAXN")
    return write(fingerprint=known.to_dict())


def test_the_list_above_holds_every_field() -> None:
    assert set(OTHER) == {*MEASURED_FIELDS, *IDENTITY_FIELDS}


@pytest.mark.parametrize("field", list(OTHER))
def test_any_field_is_refused_by_name_and_can_be_accepted(
    field: str, path: Path, spec: DeviceSpec
) -> None:
    table = LatencyTable.load(path)
    expected = {"expect": table.spec, "expect_fingerprint": table.fingerprint}
    assert LatencyTable.load(path, **expected).accepted == ()
    kind = "expect" if field in MEASURED_FIELDS else "expect_fingerprint"
    found = getattr(expected[kind], field)
    expected[kind] = replace(expected[kind], **{field: OTHER[field]})
    message = rf"a latency table of {field} .*; found: {field} .*: profile.accept=\[{field}\]"
    with pytest.raises(TableMismatchError, match=message):
        LatencyTable.load(path, **expected)
    others = [other for other in OTHER if other != field]
    with pytest.raises(TableMismatchError, match=f"a latency table of {field} "):
        LatencyTable.load(path, **expected, accept=others)
    accepted = LatencyTable.load(path, **expected, accept=[field]).accepted
    assert accepted == (Mismatch(field, OTHER[field], found),)


def test_the_message_says_all_that_has_to_be_accepted(path: Path, spec: DeviceSpec) -> None:
    expected = replace(spec, threads=2, batch=4, name="board")
    with pytest.raises(TableMismatchError, match=r"profile.accept=\[batch, name, threads\]"):
        LatencyTable.load(path, expect=expected, accept=["name"])


def test_what_is_not_known_of_a_machine_differs_from_nothing(path: Path) -> None:
    machine = LatencyTable.load(path).fingerprint
    unknown = replace(machine, gpu=None, driver=None, power_mode=None, runtime_version="")
    assert LatencyTable.load(path, expect_fingerprint=unknown).accepted == ()


def test_a_table_of_another_machine_is_added_to_if_that_was_accepted(
    build: Build, blocks: list[Workload], fingerprint: Fingerprint, replay: Callable[..., Any]
) -> None:
    samples = {"a": [2.0], "b": [4.0], "c": [6.0]}
    build(blocks[:2], replay(**samples))
    here = replace(fingerprint, chip="twice as slow")
    slow = replay(reference=2.0, overhead=0.5, a=[4.0], b=[8.0], c=[12.0])
    arguments: dict[str, Any] = {"meter": LocalMeter(slow, here)}
    with pytest.raises(TableMismatchError, match="a latency table of chip 'twice as slow'"):
        build(blocks, **arguments)
    table = build(blocks, **arguments, accept=["chip"])
    assert table.session_scale(2) == 0.5
    assert table.median_ms("block/c") == 6
    assert table.sessions[1].fingerprint["chip"] == "twice as slow"


def test_a_table_of_other_runs_can_be_read_but_not_added_to(
    build: Build, blocks: list[Workload], spec: DeviceSpec
) -> None:
    before = build(blocks[:1])
    arguments: dict[str, Any] = {"spec": replace(spec, threads=2), "accept": ["threads"]}
    assert build(blocks[:1], **arguments).rounds("block/a") == 3
    content = before.path.read_bytes()
    message = "of threads 2 at .*, to be added to; found: threads 1, which was accepted for read"
    with pytest.raises(TableMismatchError, match=message):
        build(blocks, **arguments)
    assert before.path.read_bytes() == content


@pytest.mark.parametrize("field", ["runtime", "provider", "precision", "batch", "threads"])
def test_fields_of_a_run_are_never_mixed(field: str) -> None:
    with pytest.raises(TableMismatchError, match=f"of {field} 'b' at .*, to be added to"):
        refuse_other_runs(Path("t.jsonl"), [Mismatch("name", 1, 2), Mismatch(field, "b", "a")])


def test_other_fields_may_be() -> None:
    fields = [*IDENTITY_FIELDS, "name"]
    refuse_other_runs(Path("t.jsonl"), [Mismatch(field, "b", "a") for field in fields])
