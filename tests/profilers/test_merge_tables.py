"""Tables that take over what others hold: whole, once, and never from another device."""

import json
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import profilers
from devices import DeviceSpec, Fingerprint
from devices.errors import FileError
from profilers import (
    LatencyTable,
    MeasureConfig,
    TableError,
    TableMismatchError,
    Workload,
    describe_table,
    merge_tables,
)
from profilers.table_file import open_table

Write = Callable[..., Path]
Rounds = Callable[..., list[dict[str, Any]]]
Lines = list[dict[str, Any]]

REPOSITORY = Path(profilers.__file__).parents[1]


@pytest.fixture
def session(rounds: Rounds, fingerprint: Fingerprint) -> Callable[..., Lines]:
    """Makes the lines of a session: the reference, then keys with their latencies."""

    def make(number: int, reference_ms: float = 1.0, **keys: float) -> Lines:
        facts = {"fingerprint": fingerprint.to_dict(), "measure": MeasureConfig().to_dict()}
        return [
            {"type": "session", "session": number, "began": f"2026-01-0{number}", **facts},
            *rounds("reference", [reference_ms], session=number, kind="reference"),
            *[line for key, ms in keys.items() for line in rounds(key, [ms], session=number)],
        ]

    return make


Session = Callable[..., Lines]


def samples(path: Path) -> Counter[tuple[str, tuple[float, ...]]]:
    """How often each round of a key is in a table."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    return Counter(
        (line["key"], tuple(line["samples_ms"])) for line in lines if "samples_ms" in line
    )


def test_sessions_get_numbers_of_their_own_and_are_made_comparable(
    write: Write, session: Session
) -> None:
    path = write(*session(1, a=2.0), *session(2, b=3.0))
    other = write(*session(1, 2.0, a=4.0, c=10.0), *session(2, 2.0, d=6.0), name="other.jsonl")
    before = path.read_bytes(), other.read_bytes()
    result = merge_tables(path, other)
    assert (result.other_path, result.sessions, result.known, result.samples) == (other, 2, 0, 5)
    table = LatencyTable.load(path)
    assert table.keys() == ["a", "b", "c", "d"]
    assert [facts.number for facts in table.sessions] == [1, 2, 3, 4]
    assert [facts.merged_from for facts in table.sessions] == [None, None, *["other.jsonl"] * 2]
    assert table.session_scale(3) == table.session_scale(4) == 0.5
    assert (table.median_ms("c"), table.median_ms("d")) == (5.0, 3.0)
    assert (table.rounds("a"), table.median_ms("a")) == (2, 2.0)
    # Only appended to, and the other one only read.
    assert path.read_bytes().startswith(before[0])
    assert other.read_bytes() == before[1]


def test_a_second_time_nothing_is_added(write: Write, session: Session) -> None:
    path = write(*session(1, a=2.0))
    other = write(*session(1, 2.0, a=4.0), *session(2, b=6.0), name="other.jsonl")
    merge_tables(path, other)
    content = path.read_bytes()
    result = merge_tables(path, other)
    assert (result.sessions, result.known, result.samples) == (0, 2, 0)
    result = merge_tables(path, path)
    assert (result.sessions, result.known) == (0, 3)
    assert path.read_bytes() == content


def test_what_both_have_from_a_common_copy_is_not_doubled(write: Write, session: Session) -> None:
    begun = session(1, a=2.0)
    # Hers was copied while the first session was being measured, and has one of its own.
    hers = write(*begun, *session(2, b=4.0), name="hers.jsonl")
    mine = write(*begun, *session(1, x=9.0)[2:], *session(2, c=6.0))
    result = merge_tables(mine, hers)
    assert (result.sessions, result.known, result.samples) == (1, 1, 2)
    assert merge_tables(hers, mine).samples == 3
    for path in (mine, hers):
        table = LatencyTable.load(path)
        assert sorted(table.keys()) == ["a", "b", "c", "x"]
        assert all(table.rounds(key) == 1 for key in "abcx")
    assert samples(mine) == samples(hers)


def test_what_was_derived_before_does_not_count(write: Write, session: Session) -> None:
    note = {"type": "note", "owner": "us", "n": 1}
    path = write(*session(1, a=2.0), note)
    other = write(*session(1, 2.0, a=3.0), {**note, "n": 2}, name="other.jsonl")
    merge_tables(path, other)
    assert LatencyTable.load(path).notes("us") == []
    LatencyTable.load(path).append_note("us", {"n": 3})
    merge_tables(path, other)
    assert [note.values for note in LatencyTable.load(path).notes("us")] == [{"n": 3}]


def test_an_error_is_taken_over_only_where_nothing_is_known(write: Write, session: Session) -> None:
    errors = [
        {"kind": "block", "key": key, "session": 1, "error": f"no {key}"} for key in ("a", "b", "c")
    ]
    path = write(*session(1, a=2.0), {"kind": "block", "key": "b", "session": 1, "error": "mine"})
    other = write(*session(1, 2.0, d=1.0), *errors, name="other.jsonl")
    for _ in range(2):
        merge_tables(path, other)
        assert LatencyTable.load(path).errors == {"b": "mine", "c": "no c"}
    assert path.read_bytes().count(b'"no c"') == 1


def test_what_failed_here_is_measured_elsewhere(write: Write, session: Session) -> None:
    path = write(*session(1), {"kind": "block", "key": "a", "session": 1, "error": "mine"})
    merge_tables(path, write(*session(1, 2.0, a=4.0), name="other.jsonl"))
    table = LatencyTable.load(path)
    assert (table.errors, table.median_ms("a")) == ({}, 2.0)


def test_a_session_without_measurements_is_left_out(write: Write, session: Session) -> None:
    path = write(*session(1, a=2.0))
    before = path.read_bytes()
    result = merge_tables(path, write(*session(1)[:1], name="other.jsonl"))
    assert (result.sessions, result.known) == (0, 0)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"name": "board"},
        {"precision": "int8"},
    ],
)
def test_a_table_of_another_device_is_refused_by_field(
    change: dict[str, Any], write: Write, session: Session, spec: DeviceSpec
) -> None:
    ((field, value),) = change.items()
    path = write(*session(1, a=2.0))
    device = replace(spec, **change).to_dict()
    other = write(*session(1, 2.0, b=2.0), device=device, name="other.jsonl")
    refused(
        path,
        other,
        f"a latency table of {field} .*, like .*, at .*other.jsonl; found: {field} {value!r}",
    )


def test_a_session_of_another_machine_is_refused(
    write: Write, session: Session, fingerprint: Fingerprint
) -> None:
    path = write(*session(1, a=2.0))
    first = session(1, 2.0, b=2.0)
    first[0]["fingerprint"] = replace(fingerprint, chip="other").to_dict()
    other = write(*first, name="other.jsonl")
    refused(path, other, "a latency table of chip .*; found: chip 'other' in session 1")


def refused(path: Path, other: Path, message: str) -> None:
    before = path.read_bytes()
    with pytest.raises(TableMismatchError, match=message):
        merge_tables(path, other)
    assert path.read_bytes() == before


def test_what_cannot_be_compared_is_refused(write: Write, session: Session, rounds: Rounds) -> None:
    path = write(*session(1, a=2.0))
    before = path.read_bytes()
    other = write(*rounds("b", [1.0]), name="other.jsonl")
    with pytest.raises(TableError, match="session of .*other.jsonl that .* has too.*found: a sess"):
        merge_tables(path, other)
    assert path.read_bytes() == before


def test_files_that_are_no_tables_or_not_there(
    write: Write, session: Session, tmp_path: Path
) -> None:
    path = write(*session(1, a=2.0))
    notes = tmp_path / "notes"
    notes.write_text("notes\n")
    for target, other, message in (
        (path, notes, "a latency table.*notes; found: a file that begins"),
        (notes, path, "a latency table.*notes; found: a file that begins"),
        (path, tmp_path / "none", "to read .*none; found: No such file"),
        (tmp_path / "none", path, "the latency table .*none; found: no such file"),
    ):
        with pytest.raises(FileError, match=message):
            merge_tables(target, other)
    assert not (tmp_path / "none").exists()


def test_another_writer_is_refused(write: Write, session: Session) -> None:
    path = write(*session(1, a=2.0))
    other = write(*session(1, 2.0, b=2.0), name="other.jsonl")
    with open_table(path), pytest.raises(FileError, match="only process that writes"):
        merge_tables(path, other)
    # The other table may be written meanwhile.
    with open_table(other):
        assert merge_tables(path, other).sessions == 1


def test_stopped_at_any_byte_it_is_finished_by_merging_again(
    write: Write, session: Session, tmp_path: Path
) -> None:
    path = write(*session(1, a=2.0))
    error = {"kind": "block", "key": "z", "session": 1, "error": "cannot"}
    other = write(
        *session(1, 2.0, a=4.0, b=1.0), error, *session(2, 2.0, c=5.0), name="other.jsonl"
    )
    begun = path.stat().st_size
    merge_tables(path, other)
    whole = path.read_bytes()
    wanted, cut = samples(path), tmp_path / "cut.jsonl"
    began = [session.began for session in LatencyTable.load(path).sessions]
    assert sum(wanted.values()) == 7
    ends = [number for number in range(begun, len(whole)) if whole[number] == ord("\n")]
    sizes = {*range(begun, len(whole), 13), *ends, *(end - 1 for end in ends)}
    for size in sorted({*sizes, *(end + 1 for end in ends)} - {len(whole)}):
        cut.write_bytes(whole[:size])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert LatencyTable.load(cut).rounds("a") in (1, 2)
            assert describe_table(LatencyTable.load(cut))
            merge_tables(cut, other)
        assert samples(cut) == wanted
        table = LatencyTable.load(cut)
        assert table.errors == {"z": "cannot"}
        scales = [table.session_scale(session.number) for session in table.sessions]
        assert scales == [1.0, 0.5, 0.5]
        assert merge_tables(cut, other).samples == 0
        # What is only continued stays what it is.
        assert [s.began for s in table.sessions] == began
        assert [s.merged_from for s in table.sessions] == [None, "other.jsonl", "other.jsonl"]


def test_what_is_measured_after_a_stopped_merge_is_kept_apart(
    write: Write,
    session: Session,
    build: Callable[..., LatencyTable],
    blocks: list[Workload],
    replay: Callable[..., Any],
    tmp_path: Path,
) -> None:
    build(blocks[:1], replay(a=[2.0]))
    path = tmp_path / "table.jsonl"
    other = write(*session(1, 2.0, b=1.0), *session(2, 2.0, c=5.0), name="other.jsonl")
    begun = path.stat().st_size
    merge_tables(path, other)
    whole = path.read_bytes()
    # After each of its lines, the last but one included.
    ends = [number + 1 for number in range(begun, len(whole) - 1) if whole[number] == ord("\n")]
    for end in ends:
        path.write_bytes(whole[:end])
        build(blocks[:2], replay(a=[2.0], b=[3.0]))
        merge_tables(path, other)
        found = samples(path)
        assert found["b", (1.0,)] == found["c", (5.0,)] == 1
        table = LatencyTable.load(path)
        assert (table.rounds("block/b"), table.median_ms("block/b")) == (3, 3.0)
        assert len(table.sessions) == 4
        assert merge_tables(path, other).samples == 0
