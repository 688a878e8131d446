"""How well predicted latencies hold on networks that the table has not seen.

Measures the table of a configuration and 24 held-out networks in one run, and compares the
prediction with the plain one: the sum of warm blocks times one factor, fitted to the same networks.

Usage: python benchmarks/latency_accuracy.py [OVERRIDE ...]
(such as device.threads=2; configuration resnet50to101_128). Run nothing else meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import print_machine

from edgesearch.config import load_config
from edgesearch.latency import PredictionError, prediction_error
from edgesearch.space import Architecture, SearchSpace
from profilers import LatencyTable

CONFIG = "resnet50to101_128"


def main() -> None:
    """Print the errors of both predictions and their ratio."""
    print_machine()
    overrides = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        arguments = [CONFIG, f"output_dir={folder}", *overrides]
        durations = {stage: run(stage, arguments)[0] for stage in ("profile", "validate")}
        output = run("validate", arguments)[1]  # which is a reading only, unless time was short
        validated = json.loads(output)
        table = LatencyTable.load(Path(validated["table_path"]))
        plain = plain_error(load_config(CONFIG, overrides).space.build(), table)
    print(f"latency_accuracy: {CONFIG} {' '.join(overrides)}")
    for stage, duration in durations.items():
        print(f"  {stage:10} {duration:6.1f} s, exports included")
    ours = PredictionError(**{name: validated[name] for name in PredictionError.__annotations__})
    for name, errors in (("this model", ours), ("one factor on the sum of warm blocks", plain)):
        print(
            f"  {name}: {errors.n} networks, MAPE {errors.mape:.2%}, bias {errors.bias:+.2%}, "
            f"worst {errors.worst:.1%}, {errors.within_5:.0%} within 5 %, "
            f"{errors.within_10:.0%} within 10 %, Kendall tau {errors.kendall_tau:.3f}"
        )
    print(f"  ratio of the MAPEs {plain.mape / ours.mape:.1f}")


def run(stage: str, arguments: list[str]) -> tuple[float, str]:
    """Wall time and standard output of a command."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "edgesearch", stage, *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start, done.stdout.decode()


def plain_error(space: SearchSpace, table: LatencyTable) -> PredictionError:
    """Errors of a single factor on the sum of warm blocks, fitted to the same networks."""
    fitted, held_out = (
        [
            (
                sum(table.low_quantile_ms(block.key) for block in space.blocks(architecture)),
                network.median_ms,
            )
            for network in table.networks(space.space_hash, kind)
            for architecture in [Architecture.from_dict(network.architecture)]
        ]
        for kind in ("network", "validation")
    )
    factor = np.median([median_ms / total_ms for total_ms, median_ms in fitted])
    sums_ms, medians_ms = np.array(held_out).T
    return prediction_error(factor * sums_ms, medians_ms)


if __name__ == "__main__":
    main()
