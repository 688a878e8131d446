"""What a latency table is worth that was measured while other programs ran.

For each number N, measures a table with N busy processes beside it, which the script starts and
ends. Then measures another table and held-out networks alone, and compares: predictions of the busy
table against the latencies measured alone, beside the verdict of the table on itself. A table must
be right within 3 % or say that it is not to be trusted.

Usage: python benchmarks/busy_machine.py [--processes 1 3 6] [--seconds 90] [OVERRIDE ...]
(such as device.threads=2). The space has 256 networks of about 3 to 10 ms. Run nothing else
meanwhile: the latencies measured alone are the truth here.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
from machine import print_machine

import edgesearch
from edgesearch.latency.load_table import corrected_model
from edgesearch.latency.prediction_error import prediction_error
from edgesearch.latency.table import VALIDATION, measured_networks
from edgesearch.stages.profile import ProfileResult
from profilers import LatencyTable, Steadiness

SPACE = (
    "space.stem_widths=[24,48]",
    "space.stage_widths=[[24,48],[48,96],[96,192],[160]]",
    "space.stage_depths=[[1,2],[1,2],[1,2],[1,2]]",
    "space.resolutions=[48]",
)
HELD_OUT = 16
WITHIN = 0.03


def main() -> None:
    """Print errors and verdict for each number of busy processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 3, 6])
    parser.add_argument("--seconds", type=float, default=90)
    options, overrides = parser.parse_known_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        common = (*SPACE, *overrides, f"profile.cache_dir={folder}/cache")

        def run(name: str, *more: str) -> edgesearch.Run:
            places = (f"output_dir={folder}/{name}", f"validation.networks={HELD_OUT}")
            return edgesearch.Run("cifar10", *common, *places, *more)

        export = run("export", "profile.rounds=1", "profile.max_seconds=1")
        export.profile()  # exports the blocks, which are cached
        busy: dict[int, ProfileResult] = {}
        for number in options.processes:
            with busy_processes(number):
                limit = f"profile.max_seconds={options.seconds}"
                busy[number] = run(f"busy{number}", limit).profile()
        alone = run("alone")
        quiet = alone.profile()
        validated = alone.validate()
        truth = measured_networks(LatencyTable.load(quiet.table_path), alone.space, VALIDATION)
        print(f"busy_machine: {' '.join(['cifar10', *SPACE, *overrides])}")
        print(
            f"  held out: {len(truth)} networks of {min(n.median_ms for n in truth):.2f} to "
            f"{max(n.median_ms for n in truth):.2f} ms"
        )
        tell("alone", validated.mape, validated.bias, validated.worst, quiet.steadiness)
        for number, result in busy.items():
            table = LatencyTable.load(result.table_path)
            model = corrected_model(alone.space, table)
            predicted = np.array([model.predict(n.architecture).median_ms for n in truth])
            errors = prediction_error(predicted, np.array([n.median_ms for n in truth]))
            name = f"beside {number} busy process{'es' if number != 1 else ''}"
            tell(name, errors.mape, errors.bias, errors.worst, result.steadiness)
            if errors.mape > WITHIN and result.steadiness.settled:
                print("    WRONG, AND DOES NOT SAY SO")


def tell(name: str, mape: float, bias: float, worst: float, steadiness: Steadiness) -> None:
    """Print errors, and the table's verdict on itself."""
    print(f"  {name}: MAPE {mape:.2%}, bias {bias:+.2%}, worst {worst:.1%}")
    print(f"    its table says: {steadiness}")


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Processes that each want a core all the time."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
