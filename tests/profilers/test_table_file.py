"""Files that cannot be written, and writers that are killed."""

import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import profilers
from profilers import LatencyTable, Workload

Build = Callable[..., LatencyTable]
RoundsByKey = Callable[[Path], dict[str, list[tuple[int, int]]]]

REPOSITORY = Path(profilers.__file__).parents[1]


PROGRAM = """
import sys
from pathlib import Path
from devices import DeviceSpec, OnnxRuntime, take_fingerprint
from devices.errors import UserError
from profilers import LocalMeter, MeasureConfig, Workload, build_table

folder, rounds, limit_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if limit_bytes:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
paths = sorted(folder.glob("?.onnx"))
try:
    build_table(
        folder / "table.jsonl",
        spec=DeviceSpec("local-cpu"),
        workloads=[Workload(f"block/{path.stem}", path) for path in paths],
        meter=LocalMeter(OnnxRuntime(), take_fingerprint("onnxruntime", "1.0")),
        config=MeasureConfig(rounds=rounds, runs=2, interval=1e9, tolerance=1e9),
    )
except UserError as error:
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
    blocks: list[Workload], tmp_path: Path, rounds_by_key: RoundsByKey
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
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    made = rounds_by_key(path)
    assert sorted(made) == [workload.key for workload in blocks]
    assert all(len(set(numbers)) == len(numbers) == rounds for numbers in made.values())
    table = LatencyTable.load(path)
    assert table.last_session >= 2
    assert all(table.median_ms(workload.key) > 0 for workload in blocks)
    # Nothing else is left behind.
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx", "c.onnx", "table.jsonl"]


def test_when_the_disk_is_full_what_was_written_is_kept(
    blocks: list[Workload], tmp_path: Path, rounds_by_key: RoundsByKey
) -> None:
    pytest.importorskip("resource", reason="needs a limit on the size of files")
    # The limit also holds for the models that the profiler writes for itself: 231 kB.
    process = start(tmp_path, 4000, limit_bytes=300_000)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 2, stderr
    assert "room to append to" in stdout
    assert str(tmp_path / "table.jsonl") in stdout
    assert "File too large" in stdout
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = rounds_by_key(tmp_path / "table.jsonl")
        assert LatencyTable.load(tmp_path / "table.jsonl").rounds("block/a") > 100
    count = max(map(len, before.values())) + 2
    process = start(tmp_path, count)
    process.communicate(timeout=600)
    after = rounds_by_key(tmp_path / "table.jsonl")
    assert sorted(after) == sorted(before)
    assert all(len(set(rounds)) == len(rounds) == count for rounds in after.values())


def test_when_the_disk_is_full_no_table_is_begun(blocks: list[Workload], tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="needs a limit on the size of files")
    process = start(tmp_path, 2, limit_bytes=100)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 2, stderr
    assert "room to append to" in stdout
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "b.onnx", "c.onnx"]


def test_when_the_temporary_folder_is_full_it_is_named(
    blocks: list[Workload], tmp_path: Path
) -> None:
    pytest.importorskip("resource", reason="needs a limit on the size of files")
    process = start(tmp_path, 2, limit_bytes=50_000)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 2, stderr
    assert f"to write two small models to {tempfile.gettempdir()}; found: File too" in stdout
