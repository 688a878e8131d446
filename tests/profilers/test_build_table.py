"""Tables that are built, stopped and built again, with real sessions."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import profilers
from devices import DeviceSpec, OnnxRuntime, ReplayRuntime, Runtime, Session
from devices.errors import EngineError
from profilers import (
    LatencyTable,
    MeasureConfig,
    ProfilerError,
    TableError,
    TableMismatchError,
    Workload,
)
from profilers.table_file import TableFile

Build = Callable[..., LatencyTable]

REPOSITORY = Path(profilers.__file__).parents[1]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rounds_by_key(path: Path) -> dict[str, list[int]]:
    """Rounds of each block or network, in the order of the file."""
    found: dict[str, list[int]] = {}
    for values in lines(path)[1:]:
        if values.get("type") in (None, "network") and "samples_ms" in values:
            found.setdefault(values["key"], []).append(values["round"])
    return found


class CountingRuntime:
    """A runtime that notes which files it loads."""

    def __init__(self, runtime: Runtime) -> None:
        self.name = runtime.name
        self.version = runtime.version
        self.loaded: list[str] = []
        self._runtime = runtime

    def load(self, path: Path) -> Session:
        self.loaded.append(path.stem)
        return self._runtime.load(path)


def test_a_table_of_real_sessions(
    build: Build, blocks: list[Workload], write_block: Callable[[str], Path], tmp_path: Path
) -> None:
    whole = Workload("network/x", write_block("x"), "network", {"depths": [1]}, "cafe")
    table = build([*blocks, whole])
    assert sorted(table.keys()) == ["block/a", "block/b", "block/c"]
    for key in [*table.keys(), "network/x"]:
        assert table.rounds(key) == 3
        assert table.median_ms(key) > 0
    assert 0 < table.overhead_ms < table.median_ms("network/x") + 1
    (network,) = table.networks("cafe")
    assert (network.key, network.architecture) == ("network/x", {"depths": [1]})
    assert table.session_scale(1) == 1
    header, *others = lines(tmp_path / "table.jsonl")
    assert list(header) == ["format", "device", "fingerprint", "measure"]
    assert header["measure"]["rounds"] == 3
    # The reference opens every round.
    starts = [values for values in others if values.get("type") == "reference"]
    assert [values["round"] for values in starts] == [1, 2, 3]
    assert others[0] == starts[0]
    assert all(len(values["samples_ms"]) == 2 for values in others)


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
    build: Build, blocks: list[Workload], tmp_path: Path
) -> None:
    build(blocks)
    build(blocks, config=MeasureConfig(rounds=5, runs=2))
    assert rounds_by_key(tmp_path / "table.jsonl") == {w.key: [1, 2, 3, 4, 5] for w in blocks}


def test_time_bounds_the_building(build: Build, blocks: list[Workload]) -> None:
    config = MeasureConfig(rounds=50, runs=1, max_seconds=1e-9, minimum_rounds=2)
    assert build(blocks, config=config).rounds("block/a") == 2
    assert build(blocks, config=config).rounds("block/a") == 3


def test_replayed_samples_give_the_same_table(
    build: Build, replay: Callable[..., ReplayRuntime], tmp_path: Path
) -> None:
    workloads = [Workload(f"block/{name}", Path(name)) for name in "ab"]
    tables = []
    for _ in range(2):
        table = build(workloads, replay(a=[2.0, 3.0, 4.0], b=[5.0]))
        tables.append((tmp_path / "table.jsonl").read_bytes())
        assert table.overhead_ms == 0.25
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


def test_progress_counts_rounds_of_workloads(build: Build, blocks: list[Workload]) -> None:
    build(blocks[:1], config=MeasureConfig(rounds=1))
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


def test_sessions_are_closed(build: Build, blocks: list[Workload]) -> None:
    sessions: list[Session] = []

    class Keeping(CountingRuntime):
        def load(self, path: Path) -> Session:
            sessions.append(super().load(path))
            return sessions[-1]

    build(blocks, Keeping(OnnxRuntime()))
    assert len(sessions) == 5
    for session in sessions:
        with pytest.raises(EngineError, match="closed"):
            session.time_ms(1)


def test_a_key_that_is_there_twice_is_named(build: Build, blocks: list[Workload]) -> None:
    with pytest.raises(ProfilerError, match="key of its own .*found: 'block/b'"):
        build([*blocks, blocks[1]])


def test_a_table_of_another_device_is_left_alone(
    build: Build, blocks: list[Workload], tmp_path: Path
) -> None:
    build(blocks)
    before = (tmp_path / "table.jsonl").read_bytes()
    with pytest.raises(TableMismatchError, match="threads 2; found: threads 1"):
        build(blocks, spec=DeviceSpec("local-cpu", threads=2))
    assert (tmp_path / "table.jsonl").read_bytes() == before


def test_a_foreign_file_is_left_alone(build: Build, blocks: list[Workload], tmp_path: Path) -> None:
    (tmp_path / "table.jsonl").write_bytes(b"my diary\nday 1")
    with pytest.raises(TableError, match="must be a latency table"):
        build(blocks)
    assert (tmp_path / "table.jsonl").read_bytes() == b"my diary\nday 1"


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
    with TableFile(tmp_path / "table.jsonl"):
        with pytest.raises(TableError, match="one process at a time; found: another one"):
            build(blocks)
        with pytest.raises(TableError, match="one process at a time"):
            table.append_correction({"space_hash": "cafe"})
        # Reading is allowed at any time.
        assert LatencyTable.load(tmp_path / "table.jsonl").rounds("block/a") == 3
    assert build(blocks).rounds("block/c") == 3


def test_ctrl_c_passes_and_leaves_the_table_intact(
    build: Build, blocks: list[Workload], tmp_path: Path
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
    assert rounds_by_key(tmp_path / "table.jsonl") == dict.fromkeys(
        [workload.key for workload in blocks], [1, 2, 3]
    )


@pytest.mark.parametrize("path", ["/dev/full", "/dev/null"])
def test_a_device_is_no_table(path: str, build: Build, blocks: list[Workload]) -> None:
    if not Path(path).exists():
        pytest.skip(f"no {path} here")
    with pytest.raises(TableError, match=f"{path} must be a regular file"):
        TableFile(Path(path), {"format": 1}).__enter__()
    with pytest.raises(TableError, match=f"{path} must be a regular file"):
        LatencyTable.load(Path(path))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        TableError, match="to write the latency table .*file.t.jsonl; found: File exists"
    ):
        TableFile(tmp_path / "file" / "t.jsonl", {"format": 1}).__enter__()


def test_appending_to_a_table_that_is_gone_is_refused(
    build: Build, blocks: list[Workload], tmp_path: Path
) -> None:
    table = build(blocks[:1])
    (tmp_path / "table.jsonl").unlink()
    with pytest.raises(TableError, match="to write the latency table .*No such file"):
        table.append_correction({"space_hash": "cafe"})
    assert not (tmp_path / "table.jsonl").exists()


PROGRAM = """
import sys
from pathlib import Path
from devices import DeviceSpec, OnnxRuntime, take_fingerprint
from profilers import MeasureConfig, ProfilerError, Workload, build_table

folder, rounds, limit_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if limit_bytes:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
paths = sorted(folder.glob("?.onnx"))
try:
    build_table(
        folder / "table.jsonl",
        spec=DeviceSpec("local-cpu"),
        fingerprint=take_fingerprint("onnxruntime", "1.0"),
        workloads=[Workload(f"block/{path.stem}", path) for path in paths],
        runtime=OnnxRuntime(),
        config=MeasureConfig(rounds=rounds, runs=2),
    )
except ProfilerError as error:
    print(error)
    sys.exit(2)
"""


def start(folder: Path, rounds: int, limit_bytes: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error:x",
            "-c",
            PROGRAM,
            str(folder),
            str(rounds),
            str(limit_bytes),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_at_random_moments_it_reaches_the_same_table(
    blocks: list[Workload], tmp_path: Path
) -> None:
    rounds, chance, path = 600, random.Random(0), tmp_path / "table.jsonl"
    sizes = []
    for kill in range(4):
        process = start(tmp_path, rounds)
        # From the moment on at which it writes: before, there is nothing to lose.
        begun = path.stat().st_size if kill else 0
        while process.poll() is None and (path.stat().st_size if path.exists() else 0) <= begun:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.communicate()
        sizes.append(path.stat().st_size)
    assert sizes == sorted(set(sizes))
    process = start(tmp_path, rounds)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert rounds_by_key(path) == {workload.key: list(range(1, rounds + 1)) for workload in blocks}
    table = LatencyTable.load(path)
    assert table.last_session >= 2
    assert all(table.median_ms(workload.key) > 0 for workload in blocks)
    # Nothing else is left behind.
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx", "c.onnx", "table.jsonl"]


def test_when_the_disk_is_full_what_was_written_is_kept(
    blocks: list[Workload], tmp_path: Path
) -> None:
    pytest.importorskip("resource", reason="needs a limit on the size of files")
    # The limit also holds for the models that the profiler writes for itself: 231 kB.
    process = start(tmp_path, 4000, limit_bytes=300_000)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 2, stderr
    assert "to append to the latency table" in stdout
    assert str(tmp_path / "table.jsonl") in stdout
    assert "File too large" in stdout
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = rounds_by_key(tmp_path / "table.jsonl")
        assert LatencyTable.load(tmp_path / "table.jsonl").rounds("block/a") > 100
    count = max(map(len, before.values())) + 2
    process = start(tmp_path, count)
    process.communicate(timeout=60)
    after = rounds_by_key(tmp_path / "table.jsonl")
    assert all(Counter(after[key]) == Counter(range(1, count + 1)) for key in before)


def test_when_the_disk_is_full_no_table_is_begun(blocks: list[Workload], tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="needs a limit on the size of files")
    process = start(tmp_path, 2, limit_bytes=100)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 2, stderr
    assert "to write the latency table" in stdout
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx", "c.onnx"]


def test_when_the_temporary_folder_is_full_it_is_named(
    blocks: list[Workload], tmp_path: Path
) -> None:
    pytest.importorskip("resource", reason="needs a limit on the size of files")
    process = start(tmp_path, 2, limit_bytes=50_000)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 2, stderr
    assert f"to write two small models to {tempfile.gettempdir()}; found: File too" in stdout
