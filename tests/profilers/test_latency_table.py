"""Figures and faults of tables that were written by hand."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices.errors import FileError, UserError
from profilers import (
    KeyHistory,
    LatencyTable,
    MeasureConfig,
    MissingKeyError,
    Steadiness,
    TableError,
)
from profilers.table_file import open_table

Write = Callable[..., Path]


def block(key: str, *rounds: list[float], session: int = 1, **more: Any) -> list[dict[str, Any]]:
    """Lines of a key, one for each round."""
    facts = {"kind": "block", "key": key, "session": session}
    return [
        {**facts, "round": number, "samples_ms": samples, **more}
        for number, samples in enumerate(rounds, start=1)
    ]


def own(kind: str, *rounds: list[float], session: int = 1) -> list[dict[str, Any]]:
    return block(kind, *rounds, session=session, kind=kind)


def network(key: str, *rounds: list[float]) -> list[dict[str, Any]]:
    return block(key, *rounds, kind="network", about={"n": key})


def test_figures_of_a_key(write: Write) -> None:
    rounds = [[2.0, 3.0, 9.0], [2.0, 4.0, 5.0], [2.0, 5.0, 6.0]]
    table = LatencyTable.load(write(*own("overhead", [0.5], [0.5]), *block("a", *rounds)))
    assert table.low_quantile_ms("overhead", with_overhead=True) == 0.5
    assert table.low_quantile_ms("a") == pytest.approx(1.5)
    # A whole run is with its fixed cost.
    assert table.median_ms("a") == 4
    assert table.percentile_ms("a", 100) == 9
    assert table.median_interval_ms("a") == (3, 5)
    assert table.percentile_interval_ms("a", 95) == (3, 9)
    assert table.rounds("a") == 3
    assert table.rounds("b") == 0


def test_the_overhead_of_sessions_that_measured_others_does_not_count(write: Write) -> None:
    first = (*own("reference", [1.0]), *own("overhead", [0.5]), *block("a", [2.0]))
    later = (*own("reference", [1.0], session=2), *own("overhead", [0.1], session=2))
    assert LatencyTable.load(write(*first, *later)).low_quantile_ms("a") == 1.5


def test_less_than_the_overhead_is_nothing(write: Write) -> None:
    table = LatencyTable.load(write(*own("overhead", [0.5]), *block("a", [0.4])))
    assert table.low_quantile_ms("a") == 0


def test_later_sessions_are_scaled_by_the_reference(write: Write) -> None:
    path = write(
        *own("reference", [1.0], [1.0]),
        *block("a", [2.0, 4.0]),
        *own("reference", [2.0], [2.0], session=2),
        *own("overhead", [0.2], session=2),
        *block("a", [4.0, 8.0], session=2),
        *block("b", [6.0, 8.0], session=2),
    )
    table = LatencyTable.load(path)
    assert (table.session_scale(1), table.session_scale(2)) == (1.0, 0.5)
    assert table.low_quantile_ms("overhead", with_overhead=True) == pytest.approx(0.1)
    assert table.median_ms("a") == pytest.approx(3)
    assert table.median_ms("b") == pytest.approx(3.5)
    assert table.low_quantile_ms("a") == pytest.approx(1.9)
    assert table.low_quantile_ms("b") == pytest.approx(3.0)
    assert table.percentile_ms("b", 100) == pytest.approx(4)
    assert table.last_session == 2


def test_disturbed_rounds_do_not_change_a_sessions_scale(write: Write) -> None:
    calm, disturbed = [[1.0]] * 12, [[1.0]] * 5 + [[9.0]] * 7
    path = write(*own("reference", *calm), *own("reference", *disturbed, session=2))
    assert LatencyTable.load(path).session_scale(2) == pytest.approx(1)


def test_sessions_are_joined_by_their_undisturbed_rounds_few_as_they_may_be(write: Write) -> None:
    first = [line for _ in range(12) for line in (*own("reference", [1.0]), *block("a", [2.0]))]
    later = [
        line
        for number in range(12)
        for line in (
            *own("reference", [1.0 if number < 4 else 1.5], session=2),
            *block("a", [2.0 if number < 3 else 3.0], session=2),
        )
    ]
    assert LatencyTable.load(write(*first, *later)).session_scale(2) == pytest.approx(1)


def test_a_session_without_reference_cannot_be_joined(write: Write) -> None:
    path = write(*own("reference", [1.0]), *block("a", [1.0], session=2))
    with pytest.raises(
        TableError, match="reference workload of each session in .*; found: session 2"
    ):
        LatencyTable.load(path).median_ms("a")


def test_keys_come_by_kind(write: Write) -> None:
    path = write(
        *own("reference", [1.0]),
        *block("b", [1.0]),
        *network("n", [1.0]),
        *block("a", [1.0], [2.0]),
        {"kind": "block", "key": "c", "session": 1, "error": "no such operator"},
    )
    table = LatencyTable.load(path)
    assert table.keys() == ["b", "a"]
    assert table.keys("network") == ["n"]
    assert table.errors == {"c": "no such operator"}


def test_an_error_holds_until_samples_follow(write: Write) -> None:
    error = {"kind": "block", "key": "a", "session": 1, "error": "why"}
    assert LatencyTable.load(write(error, *block("a", [1.0], session=1))).errors == {}
    table = LatencyTable.load(write(*block("a", [1.0]), error))
    assert table.errors == {"a": "why"}
    assert table.median_ms("a") == 1


def test_a_missing_key_is_named_with_what_to_do(write: Write) -> None:
    table = LatencyTable.load(write({"kind": "block", "key": "b", "session": 1, "error": "why"}))
    for method in (table.low_quantile_ms, table.median_ms, table.median_interval_ms):
        with pytest.raises(MissingKeyError, match="'a' in .*found: none.*edgesearch profile"):
            method("a")
    for of_percentile in (table.percentile_ms, table.percentile_interval_ms):
        with pytest.raises(MissingKeyError, match="'b' in .*found: an error: why"):
            of_percentile("b", 95)


def test_notes_are_their_owners(write: Write) -> None:
    theirs = {"type": "note", "owner": "them", "n": 1}
    path = write(*block("a", [1.0]), theirs)
    table = LatencyTable.load(path)
    table.append_note("us", {"n": 2, "deep": [{}]})
    for found in (table, LatencyTable.load(path)):
        assert [note.values for note in found.notes("us")] == [{"n": 2, "deep": [{}]}]
        assert [(note.values, note.line) for note in found.notes("them")] == [({"n": 1}, 3)]
        assert found.notes("others") == []


def test_appending_cuts_a_torn_line_off(write: Write) -> None:
    path = write(*block("a", [1.0]))
    intact = path.read_bytes()
    path.write_bytes(intact + b'{"key": "a", "sess')
    with pytest.warns(UserWarning, match="last line is torn"):
        table = LatencyTable.load(path)
    with pytest.warns(UserWarning, match="last line is torn"):
        table.append_note("us", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(LatencyTable.load(path).notes("us")) == 1
    assert path.read_bytes().startswith(intact + b'{"type": "note"')


def test_appending_to_a_table_that_is_gone_is_refused(write: Write) -> None:
    path = write(*block("a", [1.0]))
    table = LatencyTable.load(path)
    path.unlink()
    with pytest.raises(FileError, match="the latency table .*no such file"):
        table.append_note("us", {})
    assert not path.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"key": "a", "sess', "line 3: "),
        (b'{"kind": "block", "key": "a", "session": 1}', "line 3: exactly one of samples_ms"),
        (b'{"type": "guess", "key": "a", "session": 1, "error": "x"}', "line 3: .*'type'"),
        (b'{"type": "note"}', "line 3: no 'owner'"),
        (b'{"type": "merge", "session": 2}', "line 3: no 'source'"),
    ],
)
def test_a_damaged_line_is_named(line: bytes, message: str, write: Write) -> None:
    path = write(*block("a", [1.0], [2.0]))
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]) + b"\n")
    with pytest.raises(FileError, match=f"a latency table.*hand.jsonl; found: {message}"):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    "data", [b"", b"PNG\r\n\x1a\n", b'{"format": 1, "dev', b'{"epoch": 1}\n', b"x" * 9, b'{"a": 1}']
)
def test_another_file_is_refused_and_left_alone(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="a latency table"):
            LatencyTable.load(path)
        with pytest.raises(UserError, match="a latency table"), open_table(path, {"format": 1}):
            pass
    assert path.read_bytes() == data


def test_another_format_is_refused(write: Write) -> None:
    with pytest.raises(TableError, match="table of format 1 at .*; found: format 2"):
        LatencyTable.load(write(format=2))


@pytest.mark.parametrize("header", [{"device": {}}, {"fingerprint": {}}, {"device": None}])
def test_a_header_without_device_is_refused(header: dict[str, Any], write: Write) -> None:
    with pytest.raises(TableError, match="a device and a fingerprint"):
        LatencyTable.load(write(**header))


def test_cold_runs_have_a_quantile_of_their_own(write: Write) -> None:
    rounds = [{"round": n, "samples_ms": [1.0], "cold_ms": 2.0 + n} for n in range(11)]
    lines = [
        {"kind": "block", "key": "a", "session": 1, **round_, "round": n + 1}
        for n, round_ in enumerate(rounds)
    ]
    table = LatencyTable.load(write(*lines, *block("b", [1.0])))
    assert table.cold_quantile_ms("a") == pytest.approx(3.0)
    assert table.low_quantile_ms("a") == 1.0
    assert table.cold_quantile_ms("b") is None
    with pytest.raises(MissingKeyError):
        table.cold_quantile_ms("c")


def test_sessions_are_joined_by_all_that_they_share(write: Write) -> None:
    # The reference alone would say 1; the median of what both have measured says 2.
    first = (*own("reference", [1.0]), *block("a", [2.0]), *block("b", [3.0]), *network("n", [8.0]))
    later = (
        *own("reference", [1.0], session=2),
        *block("a", [1.0], session=2),
        *block("c", [4.0], session=2),
        *block("n", [4.0], session=2, kind="network", anchor=True),
    )
    table = LatencyTable.load(write(*first, *later))
    assert table.session_scale(2) == 2
    assert table.low_quantile_ms("c") == 8
    assert table.median_ms("n") == 8
    assert table.keys("network", "other") == ["n"]
    assert table.about("n") == {"n": "n"}


def between(levels: list[float], samples: list[float]) -> list[dict[str, Any]]:
    """Rounds of the key `a`, each between two looks at the reference."""
    looks = [own("reference", [level])[0] for level in levels]
    rounds = block("a", *[[sample] for sample in samples])
    found = [line for pair in zip(looks, rounds, strict=False) for line in pair]
    return found + looks[len(rounds) :]


def session(number: int = 1, **changes: Any) -> dict[str, Any]:
    config = MeasureConfig(**changes).to_dict()
    return {"type": "session", "session": number, "measure": config, "fingerprint": {}}


def test_what_was_measured_on_a_disturbed_machine_does_not_count(write: Write) -> None:
    # The reference is slow after the third round and before the fourth.
    lines = between([1.0, 1.0, 1.0, 1.5, 1.0, 1.0, 1.0], [2.0, 2.0, 3.0, 4.0, 2.0, 2.0])
    table = LatencyTable.load(write(*lines))
    assert table.rounds("a") == 4
    assert table.percentile_ms("a", 100) == 2
    assert table.history("a") == KeyHistory((2.0, 2.0, 2.0, 2.0), 6)
    assert table.history("b") == KeyHistory()
    assert LatencyTable.load(write(session(tolerance=0.6), *lines)).rounds("a") == 6


def test_a_session_that_was_cut_off_has_a_last_stretch_too(write: Write) -> None:
    assert LatencyTable.load(write(*between([1.0, 1.0], [2.0, 2.0]))).rounds("a") == 2
    assert LatencyTable.load(write(*between([1.0, 1.0, 1.5], [2.0, 2.0, 2.0]))).rounds("a") == 1


def test_a_key_that_was_always_disturbed_keeps_its_rounds(write: Write) -> None:
    table = LatencyTable.load(write(*between([1.5, 1.0, 1.0, 1.0, 1.0], [3.0])))
    assert table.median_ms("a") == 3
    assert table.history("a") == KeyHistory((), 1)


def test_a_slow_beginning_is_found_out_later(write: Write) -> None:
    lines = between([2.0, 2.0, 1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 1.0, 1.0, 1.0])
    assert LatencyTable.load(write(*lines)).history("a") == KeyHistory((1.0, 1.0, 1.0), 5)


def test_a_table_says_whether_the_machine_settled(write: Write) -> None:
    config = session(rounds=3)
    found = LatencyTable.load(write(config, *between([1.0] * 4, [2.0] * 3))).steadiness()
    assert found == Steadiness(3, 0, 0, None, 0.0, 1.0, 1, (), 0, 0.03, True)
    words = "the latencies can be trusted: all 1 are known within 3%; no measurement was discarded"
    assert str(found) == found.of_table == words
    # Too few rounds that count, and figures that are not known well enough.
    few = between([1.0, 1.0, 1.0, 2.0], [2.0] * 3)
    wide = between([1.0] * 4, [2.0, 3.0, 4.0])
    for lines in (few, wide):
        found = LatencyTable.load(write(config, *lines)).steadiness()
        assert (found.unsettled, found.settled) == (("a",), False)
        assert "these latencies are unreliable: 0 of 1 are known within 3%" in str(found)
        assert "`edgesearch profile CONFIG --again`" in found.of_table
    assert LatencyTable.load(write()).steadiness().settled


def test_interrupted_rounds_count_only_if_there_are_no_others(write: Write) -> None:
    waited = {"samples_ms": [9.0, 8.0], "waited_ms": [6.5, 6.0]}
    lines = between([1.0] * 4, [2.0] * 3)
    lines[3] |= waited
    table = LatencyTable.load(write(session(rounds=3), *lines))
    assert table.history("a") == KeyHistory((2.0, 2.0), 3)
    assert table.percentile_ms("a", 100) == 2
    found = table.steadiness()
    assert (found.rounds, found.discarded, found.interrupted) == (3, 1, 1)
    assert "1 of 3 measurements were discarded (1 interrupted by other programs)" in str(found)
    for line in lines:
        if line["kind"] == "block":
            line |= waited
    table = LatencyTable.load(write(session(rounds=3), *lines))
    # Without the time for which they waited; a part of a run is left in any case.
    assert table.low_quantile_ms("a") == pytest.approx(2.0)
    assert not table.steadiness().settled
    lines[1]["waited_ms"] = [1.0]
    with pytest.raises(FileError, match="waited_ms"):
        LatencyTable.load(write(*lines))


def test_what_was_measured_on_a_crowded_machine_does_not_count(write: Write) -> None:
    lines = between([1.0] * 4, [2.0] * 3)
    lines[4] |= {"others": 1.8, "crowded": True}
    table = LatencyTable.load(write(session(rounds=3), *lines))
    assert table.history("a") == KeyHistory((2.0, 2.0), 3)
    said = str(table.steadiness())
    assert "(1 while the machine was slow or busy); other programs used 1.8 processors" in said


def test_runs_that_vary_widely_are_not_trusted(write: Write) -> None:
    lines = between([1.0] * 4, [2.0] * 3)
    for line in lines:
        line["samples_ms"] = [line["samples_ms"][0]] * 9 + [10.0]
    found = LatencyTable.load(write(session(rounds=3), *lines)).steadiness()
    assert found.unsettled == ()
    assert "these latencies are unreliable" in str(found)
    assert "the 95th percentile of a run is" in str(found)


def test_a_time_that_was_up_is_told_as_such(write: Write) -> None:
    found = LatencyTable.load(write(session(rounds=9), *between([1.0] * 4, [2.0] * 3))).steadiness()
    assert str(found).startswith("the latencies are preliminary: 1 of 1 have fewer rounds than")
    assert not found.settled


def test_the_rounds_that_were_asked_for_in_the_end_count(write: Write) -> None:
    lines = [session(rounds=9), *between([1.0] * 4, [2.0] * 3)]
    table = LatencyTable.load(write(*lines))
    assert table.steadiness().unsettled == ("a",)
    assert table.steadiness({"network": 3}).unsettled == ("a",)
    assert table.steadiness({"block": 3}).unsettled == ()


def test_a_session_of_unknown_settings_is_named(write: Write) -> None:
    broken = {"type": "session", "session": 1, "measure": {"round": 3}, "fingerprint": {}}
    with pytest.raises(FileError, match="line 2: .*'round'"):
        LatencyTable.load(write(broken, *block("a", [1.0]), *block("b", [1.0])))
