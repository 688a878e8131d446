"""One sandwich step of the supernet against the same subnets as separate static networks.

Forward and backward, with gradients that are allocated and added to on both sides, the same weights
and memory format; the supernet and the static networks take turns, subnet by subnet.

Usage: python benchmarks/sandwich_step.py [SPACE] [RESOLUTION] [BATCH] [ALTERNATIONS] [DEVICE]
[MODE] (resnet_small 32 64 20 cpu eager by default; DEVICE may be cuda, and MODE compiled: then the
networks of both sides are). Run nothing else meanwhile. The part for a GPU has not been run yet.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable

import torch
from machine import print_machine
from torch import nn

from edgesearch.families import load_space
from edgesearch.pretrain.sandwich import sandwich_architectures
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import extract

THREADS = 2


def main() -> None:
    """Print each subnet's ratio and that of the whole step."""
    names = ("space", "resolution", "batch", "alternations", "device", "mode")
    given = dict(zip(names, sys.argv[1:], strict=False))
    name = given.get("space", "resnet_small")
    resolution, batch = int(given.get("resolution", 32)), int(given.get("batch", 64))
    alternations = int(given.get("alternations", 20))
    device, mode = torch.device(given.get("device", "cpu")), given.get("mode", "eager")
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    print_machine()
    space = dataclasses.replace(load_space(name), resolutions=(resolution,))
    architectures = sandwich_architectures(space, random_subnets=1, seed=0, step=0)
    supernet = Supernet(space).train()
    weights = supernet.backbone.state_dict()
    statics: list[nn.Module] = [
        extract(space, weights, architecture).train() for architecture in architectures
    ]
    for network in (supernet, *statics):
        network.to(device).to(memory_format=torch.channels_last)
    if mode == "compiled":
        supernet.compile_for(architectures)
        for network in statics:
            network.compile(dynamic=False)
    images = torch.randn(batch, space.in_channels, resolution, resolution)
    images = images.to(device, memory_format=torch.channels_last)

    def shared(index: int) -> None:
        supernet.activate(architectures[index])
        forward_and_backward(supernet, images)

    def static(index: int) -> None:
        forward_and_backward(statics[index], images)

    pairs_s = [
        [(timed(shared, i, device), timed(static, i, device)) for i in range(len(architectures))]
        for _ in range(2 + alternations)
    ][2:]
    where = f"{THREADS} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    how = "" if mode == "eager" else f", {mode}"
    print(f"sandwich_step: {name} at {resolution} px, batch {batch}, {where}{how}")
    for index, label in enumerate(("largest", "smallest", "random")):
        report(label, [pairs[index] for pairs in pairs_s], space.macs(architectures[index]))
    whole = [(sum(a for a, _ in pairs), sum(b for _, b in pairs)) for pairs in pairs_s]
    report("whole step", whole, sum(map(space.macs, architectures)))


def forward_and_backward(network: nn.Module, images: torch.Tensor) -> None:
    """Add the gradients of a loss."""
    network(images).square().mean().backward()


def timed(work: Callable[[int], None], index: int, device: torch.device) -> float:
    """Seconds; on a GPU those between two events, with nothing else in its queue."""
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        first.record()
        work(index)
        last.record()
        torch.cuda.synchronize(device)
        return float(first.elapsed_time(last)) / 1e3
    start = time.perf_counter()
    work(index)
    return time.perf_counter() - start


def report(label: str, pairs_s: list[tuple[float, float]], macs: float) -> None:
    """Print the medians and the median of the ratios."""
    shared_s, static_s = (statistics.median(values) for values in zip(*pairs_s, strict=True))
    ratio = statistics.median(a / b for a, b in pairs_s)
    print(
        f"  {label:10} {macs / 1e6:7.1f} M MACs: supernet {shared_s * 1e3:7.1f} ms, static "
        f"{static_s * 1e3:7.1f} ms, ratio {ratio:.3f} (median of {len(pairs_s)})"
    )


if __name__ == "__main__":
    main()
