"""Training of a space's largest network with channels last in memory against channels first.

Forward and backward, in turn, on a CPU. edgesearch scores and evaluates with channels last, and
trains with what a timed step chooses (`pretrain.memory_format`).

Usage: python benchmarks/channels_last.py [SPACE] [RESOLUTION] [BATCH] [ALTERNATIONS]
(mobile_lite0 96 32 10 by default). Run nothing else meanwhile.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time

import torch
from machine import print_machine

from edgesearch.families import load_space
from edgesearch.supernet.supernet import Supernet

THREADS = 2
FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}


def main() -> None:
    """Print both times and their ratio."""
    given = dict(zip(("space", "resolution", "batch", "alternations"), sys.argv[1:], strict=False))
    name = given.get("space", "mobile_lite0")
    resolution, batch = int(given.get("resolution", 96)), int(given.get("batch", 32))
    alternations = int(given.get("alternations", 10))
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    print_machine()
    space = dataclasses.replace(load_space(name), resolutions=(resolution,))
    pixels = torch.randn(batch, space.in_channels, resolution, resolution)
    networks = {
        order: Supernet(space).train().to(memory_format=form) for order, form in FORMATS.items()
    }
    images = {order: pixels.to(memory_format=form) for order, form in FORMATS.items()}
    times_s = [
        {order: step_s(networks[order], images[order]) for order in FORMATS}
        for _ in range(2 + alternations)
    ][2:]
    first_s, last_s = (statistics.median(times[order] for times in times_s) for order in FORMATS)
    ratio = statistics.median(times["first"] / times["last"] for times in times_s)
    print(
        f"channels_last: largest of {name} at {resolution} px, batch {batch}, {THREADS} threads\n"
        f"  channels first {first_s * 1e3:.1f} ms, last {last_s * 1e3:.1f} ms, ratio {ratio:.2f} "
        f"(median of {len(times_s)})"
    )


def step_s(network: Supernet, images: torch.Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    start = time.perf_counter()
    network(images).square().mean().backward()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
