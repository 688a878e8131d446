"""Training steps with threads that wait briefly, as the command line lets them, and as usual.

The largest network of a space makes steps on two threads, alone and beside a program that keeps one
core busy. Each timing is that of a new process, since OpenMP reads its variables once; the two ways
take turns.

Usage: python benchmarks/waiting_threads.py [SPACE] [RESOLUTION] [BATCH]
(mobile_lite0 128 16 by default). Run nothing else meanwhile, on two cores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from machine import print_machine

from edgesearch.families import load_space
from edgesearch.training.waiting import OF_THE_USER, SPINS

ROUNDS, STEPS, THREADS = 3, 4, 2
CHILD = "--steps"


def main() -> None:
    """Print times and ratios."""
    given = [*sys.argv[1:], *("mobile_lite0", "128", "16")[len(sys.argv) - 1 :]]
    print_machine()
    print(f"waiting_threads: {given[0]} at {given[1]} px, batch {given[2]}, {THREADS} threads")
    for what, beside in (("alone", contextlib.nullcontext), ("beside a busy core", busy_core)):
        with beside():
            pairs = [(seconds(given, False), seconds(given, True)) for _ in range(ROUNDS)]
        usual, brief = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(first / last for first, last in pairs)
        print(
            f"  {what}: usual {usual * 1e3:.0f} ms, waiting briefly {brief * 1e3:.0f} ms, "
            f"ratio {ratio:.2f} (median of {ROUNDS})",
            flush=True,
        )


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def seconds(given: list[str], brief: bool) -> float:
    """Median time of a step in a new process."""
    environment = {name: text for name, text in os.environ.items() if name not in OF_THE_USER}
    if brief:
        environment["GOMP_SPINCOUNT"] = str(SPINS)
    command = [sys.executable, __file__, CHILD, *given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def steps(name: str, resolution: int, batch: int) -> None:
    """Print the median time of a step."""
    torch.set_num_threads(THREADS)
    space = dataclasses.replace(load_space(name), resolutions=(resolution,))
    network = space.make_network(space.blocks(space.largest))
    network.to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, space.in_channels, resolution, resolution)
    images = images.contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        network(images).square().mean().backward()
        times.append(time.perf_counter() - begun)
    print(statistics.median(times[1:]))


if __name__ == "__main__":
    if CHILD in sys.argv:
        steps(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
