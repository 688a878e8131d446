"""How well predicted latencies hold on networks that the table has not seen.

Measures the table of a configuration and 24 held-out networks in one run, and compares the
prediction with two plain ones, fitted to the same networks: the sum of warm blocks times one
factor, and multiply-accumulates times a factor with an offset.

Usage: python benchmarks/latency_accuracy.py [--busy] [--config NAME] [OVERRIDE ...]
(such as device.threads=2; configuration resnet50to101_128 by default). With --busy another process
keeps one core busy half the time. Run nothing else meanwhile. For mobile networks:

    for config in photos_mobile_lite0 photos_mobile_v4; do
      for device in threads=1 precision=int8 threads=2; do
        python benchmarks/latency_accuracy.py --config $config device.$device
      done
    done
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import print_machine

from edgesearch.config import load_config
from edgesearch.latency.prediction_error import PredictionError, prediction_error
from edgesearch.latency.table import NETWORK, VALIDATION, WINNER, measured_networks
from edgesearch.space import Architecture, SearchSpace
from profilers import LatencyTable

NEIGHBOUR = """
import time
while True:
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    time.sleep(0.05)
"""


def main() -> None:
    """Print the errors of all predictions and their ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--config", default="resnet50to101_128")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    busy, config, overrides = options.busy, options.config, options.overrides
    print_machine()
    with (
        tempfile.TemporaryDirectory() as folder,
        busy_neighbour() if busy else contextlib.nullcontext(),
    ):
        places = [f"output_dir={folder}/run", f"profile.cache_dir={folder}/cache"]
        arguments = [config, *places, "validation.networks=24", *overrides]
        profiled, exports_s, measuring_s = run("profile", arguments)
        validated, *_ = run("validate", arguments)
        table = LatencyTable.load(Path(validated["table_path"]))
        space = load_config(config, overrides).space.build()
        plain = plain_error(space, table, lambda a: warm_ms(space, table, a), with_offset=False)
        by_macs = plain_error(space, table, space.macs, with_offset=True)
    print(f"latency_accuracy: {' '.join([config, *overrides, *(['(one core half busy)'] * busy)])}")
    print(f"  blocks exported in {exports_s:.1f} s; table measured in {measuring_s:.1f} s")
    ours = PredictionError(**{name: validated[name] for name in PredictionError.__annotations__})
    for name, errors in (
        ("this model", ours),
        ("one factor on the sum of warm blocks", plain),
        ("offset and MACs", by_macs),
    ):
        print(
            f"  {name}: {errors.n} networks, MAPE {errors.mape:.2%}, bias {errors.bias:+.2%}, "
            f"worst {errors.worst:.1%}, {errors.within_5:.0%} within 5 %, "
            f"{errors.within_10:.0%} within 10 %, Kendall tau {errors.kendall_tau:.3f}"
        )
    for name, errors in (("warm blocks", plain), ("MACs", by_macs)):
        print(f"  MAPE of {name} / of this model {errors.mape / ours.mape:.1f}")
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


def warm_ms(space: SearchSpace, table: LatencyTable, architecture: Architecture) -> float:
    """Sum of the warm blocks of a network."""
    return sum(table.low_quantile_ms(block.key) for block in space.blocks(architecture))


def plain_error(
    space: SearchSpace,
    table: LatencyTable,
    cost: Callable[[Architecture], float],
    *,
    with_offset: bool,
) -> PredictionError:
    """Errors of a factor on one cost, fitted to the networks of the correction."""
    (costs, medians_ms), (new_costs, new_medians_ms) = (
        np.array(
            [
                (cost(network.architecture), network.median_ms)
                for network in measured_networks(table, space, *kinds)
            ]
        ).T
        for kinds in ((NETWORK, WINNER), (VALIDATION,))
    )
    offset, factor = 0.0, float(np.median(medians_ms / costs))
    if with_offset:  # least squares of the relative errors
        columns = np.stack([np.ones(len(costs)), costs], axis=1)
        offset, factor = np.linalg.lstsq(
            columns / medians_ms[:, None], np.ones(len(costs)), rcond=None
        )[0]
    return prediction_error(offset + factor * new_costs, new_medians_ms)


if __name__ == "__main__":
    main()
