"""Files that cannot be written, and writers that are killed."""

import os
import random
import subprocess
import sys
import time
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

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
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


def start(folder: Path, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(rounds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
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
