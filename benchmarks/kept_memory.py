"""Steps and scores with freed memory kept by the C library, against its usual behaviour.

Both ends of a space make training steps, and forward passes in evaluation mode, on one thread. Each
timing is that of a new process, since glibc changes its thresholds as a process goes on; the two
ways take turns. Processor time counts.

Usage: python benchmarks/kept_memory.py [SPACE] [RESOLUTION] [BATCH]
(mobile_lite0 128 32 by default)
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import struct
import sys
import time
from collections.abc import Callable

import torch
from machine import print_machine

from edgesearch.families import load_space
from edgesearch.training.allocator import memory_kept

ROUNDS, STEPS = 5, 4


def main() -> None:
    """Print times and ratios."""
    name, resolution, batch = [*sys.argv[1:], *("mobile_lite0", "128", "32")[len(sys.argv) - 1 :]]
    torch.set_num_threads(1)
    space = dataclasses.replace(load_space(name), resolutions=(int(resolution),))
    print_machine()
    print(f"kept_memory: {name} at {resolution} px, batch {batch}")
    shape = (int(batch), space.in_channels, int(resolution), int(resolution))
    images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    for end in ("smallest", "largest"):
        network = space.make_network(space.blocks(getattr(space, end)))
        network.to(memory_format=torch.channels_last)

        def step(network: torch.nn.Module = network) -> None:
            network.train()(images).square().mean().backward()

        @torch.no_grad()
        def look(network: torch.nn.Module = network) -> None:
            network.eval()(images)

        compare(f"{end}, a step", step)
        compare(f"{end}, a forward pass", look)


def compare(what: str, work: Callable[[], None]) -> None:
    """Time a work in both ways, in turn."""
    pairs = [(in_new_process(work, False), in_new_process(work, True)) for _ in range(ROUNDS)]
    usual, kept = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(first / last for first, last in pairs)
    print(
        f"  {what}: usual {usual * 1e3:.0f} ms, kept {kept * 1e3:.0f} ms, ratio {ratio:.2f} "
        f"(median of {ROUNDS})",
        flush=True,
    )


def in_new_process(work: Callable[[], None], keep: bool) -> float:
    """Processor time of a run, measured by a child of this process."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sender, struct.pack("d", seconds(work, keep)))
        os._exit(0)
    os.waitpid(child, 0)
    found: tuple[float] = struct.unpack("d", os.read(receiver, 8))
    os.close(receiver)
    os.close(sender)
    return found[0]


def seconds(work: Callable[[], None], keep: bool) -> float:
    """Processor time of a run, after some that get the memory."""
    with memory_kept() if keep else contextlib.nullcontext():
        work()
        work()
        start = time.process_time()
        for _ in range(STEPS):
            work()
        return (time.process_time() - start) / STEPS


if __name__ == "__main__":
    main()
