"""How well predicted latencies hold on networks that the table has not seen.

Measures the table of a configuration and 24 held-out networks in one run, and compares the
prediction with the plain one: the sum of warm blocks times one factor, fitted to the same networks.

Usage: python benchmarks/latency_accuracy.py [--busy] [OVERRIDE ...]
(such as device.threads=2; configuration resnet50to101_128). With --busy another process keeps one
core busy half the time. Run nothing else meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import print_machine

from edgesearch.config import load_config
from edgesearch.latency.prediction_error import PredictionError, prediction_error
from edgesearch.latency.table import NETWORK, VALIDATION, WINNER, measured_networks
from edgesearch.space import SearchSpace
from profilers import LatencyTable

CONFIG = "resnet50to101_128"
NEIGHBOUR = """
import time
while True:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    time.sleep(0.05)
"""


def main() -> None:
    """Print the errors of both predictions and their ratio."""
    print_machine()
    busy = "--busy" in sys.argv
    overrides = [argument for argument in sys.argv[1:] if argument != "--busy"]
    with (
        tempfile.TemporaryDirectory() as folder,
        busy_neighbour() if busy else contextlib.nullcontext(),
    ):
        places = [f"output_dir={folder}/run", f"profile.cache_dir={folder}/cache"]
        arguments = [CONFIG, *places, *overrides]
        profiled, exports_s, measuring_s = run("profile", arguments)
        validated, *_ = run("validate", arguments)
        table = LatencyTable.load(Path(validated["table_path"]))
        plain = plain_error(load_config(CONFIG, overrides).space.build(), table)
    print(f"latency_accuracy: {' '.join([CONFIG, *overrides, *(['(one core half busy)'] * busy)])}")
    print(f"  blocks exported in {exports_s:.1f} s; table measured in {measuring_s:.1f} s")
    ours = PredictionError(**{name: validated[name] for name in PredictionError.__annotations__})
    for name, errors in (("this model", ours), ("one factor on the sum of warm blocks", plain)):
        print(
            f"  {name}: {errors.n} networks, MAPE {errors.mape:.2%}, bias {errors.bias:+.2%}, "
            f"worst {errors.worst:.1%}, {errors.within_5:.0%} within 5 %, "
            f"{errors.within_10:.0%} within 10 %, Kendall tau {errors.kendall_tau:.3f}"
        )
    print(f"  ratio of the MAPEs {plain.mape / ours.mape:.1f}")
    for name, found in (("profile", profiled), ("validate", validated)):
        steadiness = found["steadiness"]
        print(
            f"  {name}: settled {steadiness['settled']}; {steadiness['discarded']} of "
            f"{steadiness['rounds']} measurements discarded, {len(steadiness['unsettled'])} of "
            f"{steadiness['keys']} latencies not known well enough"
        )


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """A process that wants one core half the time."""
    with subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) as neighbour:
        try:
            yield
        finally:
            neighbour.kill()


def run(stage: str, arguments: list[str]) -> tuple[dict[str, Any], float, float]:
    """Result of a command, and the seconds until its last export and from then on."""
    command = [sys.executable, "-m", "edgesearch", stage, *arguments, "--json"]
    start = exported = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        assert it.stderr is not None and it.stdout is not None
        for line in it.stderr:
            if "exported" in line or "converted" in line:
                exported = time.perf_counter()
        output = it.stdout.read()
    if it.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {it.returncode}")
    return json.loads(output), exported - start, time.perf_counter() - exported


def plain_error(space: SearchSpace, table: LatencyTable) -> PredictionError:
    """Errors of a single factor on the sum of warm blocks, fitted to the same networks."""
    fitted, held_out = (
        [
            (
                sum(table.low_quantile_ms(b.key) for b in space.blocks(network.architecture)),
                network.median_ms,
            )
            for network in measured_networks(table, space, *kinds)
        ]
        for kinds in ((NETWORK, WINNER), (VALIDATION,))
    )
    factor = np.median([median_ms / total_ms for total_ms, median_ms in fitted])
    sums_ms, medians_ms = np.array(held_out).T
    return prediction_error(factor * sums_ms, medians_ms)


if __name__ == "__main__":
    main()
