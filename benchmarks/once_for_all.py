"""Subnets of our supernet against those of Once-for-All's ResNet supernet with equal MACs.

Forward and backward of the largest, a middle and the smallest subnet in training mode, without a
classifier. Both have bottlenecks of the same depths and widths, but for the third stage: the stem
of Once-for-All has three convolutions and more MACs, which ours has in its third stage instead.
MACs of both are counted by torch while they run. Once-for-All runs in both memory formats, and the
faster one counts; ours runs with channels last. All take turns. Target: ratio at most 0.97.

Their code is public and not part of this repository:

    git clone https://github.com/mit-han-lab/once-for-all CHECKOUT

Usage: python benchmarks/once_for_all.py CHECKOUT [RESOLUTION] [BATCH] [ALTERNATIONS]
(128 32 20 by default). Run nothing else meanwhile.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from machine import print_machine
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgesearch.families import space_from_dict
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet.supernet import Supernet

THREADS = 2
TARGET = 0.97
WIDTH_FACTORS = (0.5, 0.75, 1.0)
"""Of the widths of ResNet-50; all of them give widths that Once-for-All does not round."""
MORE_BLOCKS = (0, 1, 2)
"""Blocks of each stage above the fewest."""
FEWEST_BLOCKS = (2, 2, 4, 2)
EXPANSION = 0.25
"""Width inside a bottleneck as a share of its output; ours is always a quarter."""
SUBNETS = {"largest": 2, "middle": 1, "smallest": 0}
"""Number of the width factor and of the blocks more."""
THIRD_STAGE = 2
WIDTH_STEP = 4


def main() -> None:
    """Print MACs, times and ratio of each subnet."""
    checkout, *given = sys.argv[1:]
    resolution, batch, alternations = map(int, (*given, *("128", "32", "20")[len(given) :]))
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    print_machine()
    theirs = {"contiguous": once_for_all(checkout), "channels last": once_for_all(checkout)}
    theirs["channels last"].to(memory_format=torch.channels_last)
    their_macs = [macs(chosen(theirs["contiguous"], n), resolution) for n in SUBNETS.values()]
    space, architectures = matching_space(their_macs, resolution)
    ours = Supernet(space).train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, resolution, resolution)
    last = images.to(memory_format=torch.channels_last)
    print(f"once_for_all: {resolution} px, batch {batch}, {THREADS} threads")
    for number, (name, index) in enumerate(SUBNETS.items()):
        ours.activate(architectures[number])
        our_macs = macs(ours, resolution)
        difference = our_macs / their_macs[number] - 1
        print(
            f"  {name}: {architectures[number]} {our_macs / 1e6:.1f} M MACs, theirs "
            f"{their_macs[number] / 1e6:.1f} M ({difference:+.2%})"
        )
        networks = {
            "ours": (ours, last),
            "contiguous": (chosen(theirs["contiguous"], index), images),
            "channels last": (chosen(theirs["channels last"], index), last),
        }
        report(networks, alternations)


def once_for_all(checkout: str) -> Any:
    """Their supernet in training mode, without its classifier."""
    sys.path.insert(0, checkout)
    try:
        from ofa.imagenet_classification.elastic_nn.networks import OFAResNets
    except ImportError as error:
        raise SystemExit(
            f"a checkout of Once-for-All is required, found {checkout} ({error}). Get it with "
            "git clone https://github.com/mit-han-lab/once-for-all"
        ) from error
    network = OFAResNets(
        depth_list=list(MORE_BLOCKS),
        expand_ratio_list=[EXPANSION],
        width_mult_list=list(WIDTH_FACTORS),
    )
    network.classifier = nn.Identity()
    return network.train()


def chosen(network: Any, number: int) -> Any:
    """Their supernet with a subnet activated."""
    network.set_active_subnet(d=MORE_BLOCKS[number], e=EXPANSION, w=number)
    return network


def macs(network: nn.Module, resolution: int) -> int:
    """Multiply-accumulates for one image, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(2, 3, resolution, resolution))
    return int(counter.get_total_flops()) // 4


def matching_space(
    their_macs: Sequence[int], resolution: int
) -> tuple[SearchSpace, list[Architecture]]:
    """Our space, and of each of their subnets the counterpart that is nearest in MACs."""
    found = []
    for number, wanted in zip(SUBNETS.values(), their_macs, strict=True):
        factor, more = WIDTH_FACTORS[number], MORE_BLOCKS[number]
        widths = [int(factor * width) for width in (64, 128, 256, 512)]
        depths = [fewest + more for fewest in FEWEST_BLOCKS]
        candidates = []
        for third in range(widths[THIRD_STAGE], 2 * widths[THIRD_STAGE], WIDTH_STEP):
            stages = [*widths[:THIRD_STAGE], third, *widths[THIRD_STAGE + 1 :]]
            space = our_space([(int(factor * 64), stages, depths)], resolution)
            distance = abs(space.macs(space.largest) - wanted)
            candidates.append((distance, int(factor * 64), stages, depths))
        found.append(min(candidates)[1:])
    space = our_space(found, resolution)
    return space, [
        space.from_choices(
            {
                "resolution": resolution,
                "stem_width": stem,
                **{f"stage{i}_width": width for i, width in enumerate(widths, 1)},
                **{f"stage{i}_depth": depth for i, depth in enumerate(depths, 1)},
            }
        )
        for stem, widths, depths in found
    ]


def our_space(
    architectures: Sequence[tuple[int, list[int], list[int]]], resolution: int
) -> SearchSpace:
    """The space of bottlenecks that is spanned by stem widths, stage widths and depths."""
    stems, widths, depths = zip(*architectures, strict=True)
    return space_from_dict(
        {
            "name": "as_once_for_all",
            "block": "bottleneck",
            "stem": "imagenet",
            "stem_widths": sorted(set(stems)),
            "stage_widths": [sorted(set(stage)) for stage in zip(*widths, strict=True)],
            "stage_depths": [sorted(set(stage)) for stage in zip(*depths, strict=True)],
            "resolutions": [resolution],
        }
    )


def report(networks: dict[str, tuple[nn.Module, torch.Tensor]], alternations: int) -> None:
    """Time the networks in turns, and print the medians and the median of the ratios."""
    times_s: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(2 + alternations):
        for name, (network, images) in networks.items():
            start = time.perf_counter()
            network(images).square().mean().backward()
            times_s[name].append(time.perf_counter() - start)
    medians_s = {name: statistics.median(values[2:]) for name, values in times_s.items()}
    faster = min(("contiguous", "channels last"), key=medians_s.__getitem__)
    ratio = statistics.median(
        a / b for a, b in zip(times_s["ours"][2:], times_s[faster][2:], strict=True)
    )
    print(
        f"    ours {medians_s['ours'] * 1e3:.1f} ms, theirs {medians_s['contiguous'] * 1e3:.1f} ms "
        f"contiguous, {medians_s['channels last'] * 1e3:.1f} ms channels last: ratio {ratio:.3f} "
        f"to theirs {faster} (median of {alternations}; target at most {TARGET})",
        flush=True,
    )


if __name__ == "__main__":
    main()
