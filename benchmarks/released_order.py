"""A sandwich step against one in the order of DATA's released code, which encodes keys per subnet.

Ours (`sandwich_step`): the keys once, all subnets, one move of the key encoder. Theirs
(`faithful_step`): keys, move and queue once for each subnet. The same subnets and images; the two
take turns, with a MoCo v2 of its own each. Target: ratio at most 0.80.

Usage: python benchmarks/released_order.py [SPACE] [RESOLUTION] [BATCH] [ALTERNATIONS]
(resnet_small 32 32 20 by default). Run nothing else meanwhile.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time

import torch
from machine import print_machine

from edgesearch.families import load_space
from edgesearch.pretrain.faithful import faithful_step
from edgesearch.pretrain.method import make_method
from edgesearch.pretrain.sandwich import sandwich_architectures, sandwich_step

THREADS = 2
TARGET = 0.80
STEPS = {"keys once": sandwich_step, "keys per subnet": faithful_step}


def main() -> None:
    """Print both times and their ratio."""
    given = dict(zip(("space", "resolution", "batch", "alternations"), sys.argv[1:], strict=False))
    name = given.get("space", "resnet_small")
    resolution, batch = int(given.get("resolution", 32)), int(given.get("batch", 32))
    alternations = int(given.get("alternations", 20))
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    print_machine()
    space = dataclasses.replace(load_space(name), resolutions=(resolution,))
    first, second = (
        torch.randn(batch, space.in_channels, resolution, resolution).to(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    )
    methods = {
        order: make_method("moco_v2", space, queue_size=128 * batch)
        .train()
        .to(memory_format=torch.channels_last)
        for order in STEPS
    }
    optimizers = {
        order: torch.optim.SGD([w for w in method.parameters() if w.requires_grad], 0.01, 0.9)
        for order, method in methods.items()
    }
    times_s: dict[str, list[float]] = {order: [] for order in STEPS}
    for number in range(2 + alternations):
        architectures = sandwich_architectures(space, random_subnets=1, seed=0, step=number)
        for order, step in STEPS.items():
            start = time.perf_counter()
            result = step(methods[order], (first, second), architectures, optimizers[order])
            times_s[order].append(time.perf_counter() - start)
            assert result.finite
    ours, theirs = (times_s[order][2:] for order in STEPS)
    print(f"released_order: {name} at {resolution} px, batch {batch}, {THREADS} threads")
    for order, values in zip(STEPS, (ours, theirs), strict=True):
        print(f"  {order:16}{statistics.median(values) * 1e3:8.1f} ms")
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"  ratio {ratio:.3f} (median of {alternations}; target at most {TARGET})")


if __name__ == "__main__":
    main()
