"""How much the latency of a network or block depends on where its memory lies.

Some networks of a space, and the blocks of one, are loaded several times, and all loads are timed
in turn. The spread of their low quantiles over the loads of one file is compared with the spread
that chance explains: that between halves of the rounds of one load.

Usage: python benchmarks/several_loads.py [--config NAME] [--networks N] [--loads N] [--rounds N]
[OVERRIDE ...] (photos_mobile_lite0 by default). Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

import numpy as np
from machine import print_machine
from numpy.typing import NDArray

from devices import Session, take_fingerprint
from devices.runtimes.open_runtime import open_runtime
from edgesearch.api import Run
from edgesearch.latency.table import NETWORK
from edgesearch.latency.workloads import WorkloadFiles

RUNS = 3


def main() -> None:
    """Print both spreads and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="photos_mobile_lite0")
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--loads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    print_machine()
    run = Run(options.config, *options.overrides)
    space, device, runtime = run.space, run.device, open_runtime(run.device)
    fingerprint = take_fingerprint(runtime.name, runtime.version, runtime.settings)
    rng = random.Random(run.config.seed)
    chosen = [space.sample(rng) for _ in range(options.networks)]
    with (
        tempfile.TemporaryDirectory() as folder,
        WorkloadFiles(space, device, fingerprint, Path(folder)) as files,
    ):
        networks = [workload.onnx_path for workload in files.networks(chosen, NETWORK)]
        blocks = [*files.blocks_of(chosen[0]).values()]
        print(f"several_loads: {' '.join([options.config, *options.overrides])}")
        for name, paths in (("networks", networks), ("blocks", blocks)):
            sessions = [[runtime.load(path) for _ in range(options.loads)] for path in paths]
            minima_ms = time_in_turn(sessions, options.rounds, rng)
            lows_ms = np.quantile(minima_ms, 0.1, axis=-1)
            halves_ms = minima_ms.reshape(*minima_ms.shape[:2], -1, 2).swapaxes(-1, -2)
            # Half of the rounds leaves more to chance than all, by the root of 2.
            by_chance = spread(np.quantile(halves_ms, 0.1, axis=-1)) / np.sqrt(2)
            typical_ms = lows_ms.mean(axis=1)
            print(
                f"  {len(paths)} {name} of {typical_ms.min():.3f} to {typical_ms.max():.3f} ms: "
                f"standard deviation over loads {spread(lows_ms):.2%}, by chance {by_chance:.2%}, "
                f"ratio {spread(lows_ms) / by_chance:.1f}"
            )


def time_in_turn(
    sessions: list[list[Session]], rounds: int, rng: random.Random
) -> NDArray[np.float64]:
    """Fastest run of each round, of shape (networks, loads, rounds)."""
    minima_ms = np.empty((len(sessions), len(sessions[0]), rounds))
    for column in range(-2, rounds):  # the first two warm up
        places = [(i, j) for i, loads in enumerate(sessions) for j in range(len(loads))]
        rng.shuffle(places)
        for i, j in places:
            minima_ms[i, j, column] = min(sessions[i][j].time_ms(RUNS))
    return minima_ms


def spread(values: NDArray[np.float64]) -> float:
    """Root of the mean relative variance along the last axis."""
    return float(np.sqrt(np.mean(values.var(axis=-1, ddof=1) / values.mean(axis=-1) ** 2)))


if __name__ == "__main__":
    main()
