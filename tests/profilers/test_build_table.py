"""Tables that are built, stopped and built again, with real sessions."""

import json
import re
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devices import OnnxRuntime, ReplayRuntime, Runtime, Session
from devices.errors import EngineError, FileError
from profilers import (
    LatencyTable,
    MeasureConfig,
    ProfilerError,
    Workload,
)
from profilers.table_file import open_table

Build = Callable[..., LatencyTable]
Exactly = Callable[..., MeasureConfig]
RoundsByKey = Callable[[Path], dict[str, list[tuple[int, int]]]]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class CountingRuntime:
    """A runtime that notes which files it loads."""

    def __init__(self, runtime: Runtime) -> None:
        self.name = runtime.name
        self.version = runtime.version
        self.settings = runtime.settings
        self.loaded: list[str] = []
        self._runtime = runtime

    def load(self, path: Path) -> Session:
        self.loaded.append(path.stem)
        return self._runtime.load(path)


def test_a_table_of_real_sessions(
    build: Build, blocks: list[Workload], write_block: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = Workload("network/x", write_block("x"), "network", {"depths": [1]})
    table = build([*blocks, whole])
    assert sorted(table.keys()) == ["block/a", "block/b", "block/c"]
    for key in [*table.keys(), "network/x"]:
        assert table.rounds(key) == 3
        assert table.median_ms(key) > 0
    assert (
        0 < table.low_quantile_ms("overhead", with_overhead=True) < table.median_ms("network/x") + 1
    )
    assert table.keys("network") == ["network/x"]
    assert table.about("network/x") == {"depths": [1]}
    assert table.session_scale(1) == 1
    header, *others = lines(tmp_path / "table.jsonl")
    assert list(header) == ["format", "device", "fingerprint", "measure"]
    assert header["measure"]["rounds"] == 3
    # The reference opens every round.
    starts = [values for values in others if values.get("kind") == "reference"]
    assert [values["round"] for values in starts] == [1, 1, 2, 2, 3, 3]
    begin, *others = others
    assert (begin["type"], begin["session"], begin["measure"]) == ("session", 1, header["measure"])
    assert begin["fingerprint"] == header["fingerprint"]
    assert [others[0], others[-1]] == [starts[0], starts[-1]]
    runs = {"reference": 10}
    assert all(len(v["samples_ms"]) == runs.get(v["key"], 2) for v in others)


def test_a_finished_table_loads_no_model(build: Build, blocks: list[Workload]) -> None:
    build(blocks)
    runtime = CountingRuntime(OnnxRuntime())
    table = build(blocks, runtime)
    assert runtime.loaded == []
    assert table.last_session == 1


def test_only_what_is_missing_is_measured(
    build: Build, blocks: list[Workload], tmp_path: Path
) -> None:
    build(blocks[:2])
    before = (tmp_path / "table.jsonl").read_bytes()
    runtime = CountingRuntime(OnnxRuntime())
    table = build(blocks, runtime)
    assert sorted(runtime.loaded) == ["c", "overhead", "reference"]
    assert (tmp_path / "table.jsonl").read_bytes().startswith(before)
    assert table.last_session == 2
    assert [table.rounds(workload.key) for workload in blocks] == [3, 3, 3]


def test_more_rounds_are_added_to_those_that_are_there(
    build: Build,
    blocks: list[Workload],
    tmp_path: Path,
    rounds_by_key: RoundsByKey,
    exactly: Exactly,
) -> None:
    build(blocks)
    build(blocks, config=exactly(rounds=5, runs=2))
    assert rounds_by_key(tmp_path / "table.jsonl") == {
        w.key: [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)] for w in blocks
    }


def test_time_bounds_the_building(build: Build, blocks: list[Workload], exactly: Exactly) -> None:
    config = exactly(rounds=50, runs=1, max_seconds=1e-9, minimum_rounds=2)
    assert build(blocks, config=config).rounds("block/a") == 2
    assert build(blocks, config=config).rounds("block/a") == 3


def test_replayed_samples_give_the_same_table(
    build: Build, replay: Callable[..., ReplayRuntime], tmp_path: Path
) -> None:
    workloads = [Workload(f"block/{name}", Path(name)) for name in "ab"]
    tables = []
    for _ in range(2):
        table = build(workloads, replay(a=[2.0, 3.0, 4.0], b=[5.0]))
        tables.append(lines(tmp_path / "table.jsonl"))
        # The clock may have gone on by a second between the two sessions.
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", tables[-1][1].pop("began"))
        assert table.low_quantile_ms("overhead", with_overhead=True) == 0.25
        assert table.low_quantile_ms("block/b") == 4.75
        (tmp_path / "table.jsonl").unlink()
    assert tables[0] == tables[1]


def test_a_slower_machine_in_a_later_session_does_not_change_the_figures(
    build: Build, replay: Callable[..., ReplayRuntime]
) -> None:
    a, b = (Workload(f"block/{name}", Path(name)) for name in "ab")
    build([a], replay(a=[2.0], b=[2.0]))
    table = build([a, b], replay(reference=3.0, overhead=0.75, a=[6.0], b=[6.0]))
    assert table.low_quantile_ms("block/b") == pytest.approx(table.low_quantile_ms("block/a"))
    assert table.median_ms("block/b") == pytest.approx(2)


def test_anchors_tell_how_fast_a_later_session_was(
    build: Build, replay: Callable[..., ReplayRuntime], tmp_path: Path
) -> None:
    a, b = (Workload(f"block/{name}", Path(name)) for name in "ab")
    networks = [Workload(f"network/{name}", Path(name), "network", {"n": name}) for name in "mn"]
    gone = Workload("network/gone", Path("gone"), "network", {"n": "gone"})
    build([a, *networks], replay(a=[2.0], m=[5.0], n=[8.0]))
    # The reference is as fast as before, but networks take twice as long.
    table = build([b], replay(b=[6.0], m=[10.0], n=[16.0]), anchors=[*networks, gone])
    assert table.session_scale(2) == 0.5
    assert table.median_ms("block/b") == 3
    assert [table.median_ms(key) for key in table.keys("network")] == [5, 8]
    anchored = [line for line in lines(tmp_path / "table.jsonl") if line.get("anchor")]
    assert {(line["kind"], line["key"]) for line in anchored} == {
        ("network", "network/m"),
        ("network", "network/n"),
    }
    assert table.rounds("network/n") == 3


def test_first_runs_are_kept_apart(
    build: Build, replay: Callable[..., ReplayRuntime], tmp_path: Path, exactly: Exactly
) -> None:
    # A run before all rounds takes two samples, each round one and the three after it.
    samples = [9.0, 9.0, *[4.0, 1.0, 2.0, 3.0] * 3]
    config = exactly(rounds=3, runs=3)
    table = build([Workload("block/a", Path("a"))], replay(a=samples), config=config)
    assert table.cold_quantile_ms("block/a") == 4
    assert table.median_ms("block/a") == 2
    assert table.low_quantile_ms("block/a") == 0.75  # the fixed cost of a run is 0.25
    written = [line for line in lines(tmp_path / "table.jsonl") if line.get("key") == "block/a"]
    assert [(w["cold_ms"], w["samples_ms"]) for w in written] == [(4.0, [1.0, 2.0, 3.0])] * 3


def test_progress_counts_rounds_of_workloads(
    build: Build, blocks: list[Workload], exactly: Exactly
) -> None:
    build(blocks[:1], config=exactly(rounds=1))
    seen: list[tuple[int, int]] = []
    build(blocks, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 8) for number in range(1, 9)]


def test_what_cannot_be_loaded_is_recorded_and_the_rest_measured(
    build: Build, blocks: list[Workload], tmp_path: Path
) -> None:
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    workloads = [Workload("block/junk", junk), *blocks]
    table = build(workloads)
    assert list(table.errors) == ["block/junk"]
    assert "junk.onnx" in table.errors["block/junk"]
    assert all(table.rounds(workload.key) == 3 for workload in blocks)
    runtime = CountingRuntime(OnnxRuntime())
    build(workloads, runtime)
    assert runtime.loaded == []


def test_errors_are_tried_again_on_demand(
    build: Build, write_block: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "late.onnx"
    workload = Workload("block/late", path)
    assert list(build([workload]).errors) == ["block/late"]
    write_block("late")
    assert list(build([workload]).errors) == ["block/late"]
    table = build([workload], retry_errors=True)
    assert table.errors == {}
    assert table.rounds("block/late") == 3


def test_what_failed_is_measured_from_the_beginning(
    build: Build, blocks: list[Workload], tmp_path: Path, exactly: Exactly
) -> None:
    # An error after rounds that are enough for whoever asks for fewer.
    build(blocks)
    path = tmp_path / "table.jsonl"
    error = {"kind": "block", "key": "block/b", "session": 1, "error": "no memory"}
    path.write_text(path.read_text() + json.dumps(error) + "\n")
    assert build(blocks).errors == {"block/b": "no memory"}
    table = build(blocks, config=exactly(rounds=2), retry_errors=True)
    assert table.errors == {}
    assert [table.rounds(workload.key) for workload in blocks] == [3, 5, 3]


def test_what_fails_while_running_is_recorded(build: Build, blocks: list[Workload]) -> None:
    class Failing(CountingRuntime):
        def load(self, path: Path) -> Session:
            session = super().load(path)
            if path.stem == "b":
                session.close()  # its runs fail from now on
            return session

    table = build(blocks, Failing(OnnxRuntime()))
    assert table.errors == {"block/b": table.errors["block/b"]}
    assert "closed" in table.errors["block/b"]
    assert [table.rounds(workload.key) for workload in blocks] == [3, 0, 3]


def test_a_runtime_that_cannot_run_anything_is_an_error(
    build: Build, blocks: list[Workload]
) -> None:
    with pytest.raises(EngineError, match="'reference'"):
        build(blocks, ReplayRuntime({"a": [1.0]}))

    class Closing(CountingRuntime):
        def load(self, path: Path) -> Session:
            session = super().load(path)
            session.close()
            return session

    with pytest.raises(EngineError, match="closed"):
        build(blocks, Closing(OnnxRuntime()))


def test_a_key_that_is_there_twice_is_named(build: Build, blocks: list[Workload]) -> None:
    with pytest.raises(ProfilerError, match="key of its own .*found: 'block/b'"):
        build([*blocks, blocks[1]])


def test_a_torn_line_is_measured_again(
    build: Build, blocks: list[Workload], tmp_path: Path
) -> None:
    build(blocks)
    path = tmp_path / "table.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="last line is torn"):
        table = build(blocks)
    assert [table.rounds(workload.key) for workload in blocks] == [3, 3, 3]
    assert len(path.read_bytes().splitlines()) == len(lines(path))


def test_two_writers_refuse_each_other(
    build: Build, blocks: list[Workload], tmp_path: Path
) -> None:
    table = build(blocks[:1])
    with open_table(tmp_path / "table.jsonl"):
        with pytest.raises(FileError, match="process that writes to .*found: another process"):
            build(blocks)
        with pytest.raises(FileError, match="only process that writes to"):
            table.append_note("us", {})
        # Reading is allowed at any time.
        assert LatencyTable.load(tmp_path / "table.jsonl").rounds("block/a") == 3
    assert build(blocks).rounds("block/c") == 3


def test_ctrl_c_passes_and_leaves_the_table_intact(
    build: Build, blocks: list[Workload], tmp_path: Path, rounds_by_key: RoundsByKey
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(blocks, on_progress=stop)
    assert sum(map(len, rounds_by_key(tmp_path / "table.jsonl").values())) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(blocks)
    made = rounds_by_key(tmp_path / "table.jsonl")
    assert sorted(made) == ["block/a", "block/b", "block/c"]
    assert all(len(set(rounds)) == len(rounds) == 3 for rounds in made.values())
    assert {session for rounds in made.values() for session, _ in rounds} == {1, 2}
