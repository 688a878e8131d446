"""Latencies of all architectures of a space: one vectorised computation against a loop.

The loop looks up the blocks of one architecture after the other, as tools with a dictionary as a
latency table do; it runs over a sample and is scaled up. Usage: python benchmarks/latency_of_all.py
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import time

from machine import print_machine

from edgesearch.families import load_space
from edgesearch.latency.correction import Correction
from edgesearch.latency.latency_model import LatencyModel

REPEATS = 7
SAMPLE = 2000


def main() -> None:
    """Print both times and their ratio."""
    print_machine()
    space = dataclasses.replace(load_space("resnet50to101"), resolutions=(224,))
    rng = random.Random(0)
    block_ms = {block.key: rng.uniform(0.1, 3.0) for block in space.distinct_blocks(224)}
    model = LatencyModel(
        space, block_ms, Correction(0.1, 1.02, 1.05, 8, 0.01, 0.0, False, 0.01, 1.02)
    )
    sample = [space.sample(rng) for _ in range(SAMPLE)]
    at_once, one_by_one = [], []
    for _ in range(REPEATS):
        start = time.perf_counter()
        everything = model.predict_all()
        at_once.append(time.perf_counter() - start)
        start = time.perf_counter()
        looped = [sum(block_ms[block.key] for block in space.blocks(a)) for a in sample]
        one_by_one.append((time.perf_counter() - start) * space.size / SAMPLE)
    for architecture, total in zip(sample, looped, strict=True):
        predicted = everything[space.index(architecture)]
        assert abs(predicted - (0.1 + 1.02 * total)) < 1e-9 * predicted
    fast, slow = statistics.median(at_once), statistics.median(one_by_one)
    print(f"latency_of_all: {space.size:,} architectures of resnet50to101 at 224 px")
    print(f"  at once      {fast * 1e3:9.1f} ms (median of {REPEATS}; target 50 ms)")
    print(f"  one by one   {slow * 1e3:9.1f} ms (scaled up from {SAMPLE} architectures)")
    print(f"  ratio        {slow / fast:9.0f}")


if __name__ == "__main__":
    main()
