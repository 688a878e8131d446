"""What scoring a candidate costs, beside its forward passes and beside the released procedure.

Weights are random: what they are does not change the time. Each candidate takes its turn in three
ways, one after the other: scored (extracted, recalibrated, run on the images and compared), plain
(its forward passes alone, over as many images), and as DATA's released code does it (the largest
network is run again on the images, the candidate is run on them with the statistics of the batch).
The time of the released procedure holds no copying, which it does not do either.

Usage: python benchmarks/score_cost.py [CANDIDATES] [IMAGES] [CALIBRATION] [TASK]
(100 512 128 classification by default). Run nothing else meanwhile.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from machine import print_machine
from torch import nn

from edgesearch.families import load_space
from edgesearch.search.agreement import Agreement
from edgesearch.search.settings import SearchSettings
from edgesearch.search.similarity import cosine_of_embeddings
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import SupernetWeights

THREADS = 2
BATCH = 128
MEAN_MACS = 100e6
TARGET_S = 240.0


def main() -> None:
    """Print both ratios, and the time of all candidates."""
    given = dict(zip(("candidates", "images", "calibration", "task"), sys.argv[1:], strict=False))
    count, images = int(given.get("candidates", 100)), int(given.get("images", 512))
    calibration, task = int(given.get("calibration", 128)), given.get("task", "classification")
    torch.set_num_threads(THREADS)
    print_machine()
    space = load_space("resnet_small")
    resolution = space.largest.resolution
    pixels = torch.randn(images + calibration, space.in_channels, resolution, resolution)
    pixels = pixels.to(memory_format=torch.channels_last)
    weights = random_weights(space)
    agreement = Agreement(
        weights,
        lambda _, first, last: pixels[calibration + first : calibration + last],
        lambda _: pixels[:calibration],
        BATCH,
        images,
        SearchSettings(task=task),
    )
    candidates = averaging(space, MEAN_MACS, count)
    agreement(space.smallest)  # the reference, once a search
    rows = []
    for architecture in candidates:
        network = weights.embedder(architecture).to(memory_format=torch.channels_last)
        rows.append(
            (
                timed(lambda a=architecture: agreement(a)),
                timed(lambda n=network: forward(n, pixels)),
                timed(
                    lambda n=network: released(n, agreement.reference_network, pixels[calibration:])
                ),
            )
        )
    scored, plain, former = (statistics.median(column) for column in zip(*rows, strict=True))
    macs = statistics.mean(space.macs(a) for a in candidates)
    against_plain = statistics.median(row[0] / row[1] for row in rows)
    against_former = statistics.median(row[2] / row[0] for row in rows)
    total = sum(row[0] for row in rows)
    print(
        f"score_cost: {len(rows)} candidates of {space.name} averaging {macs / 1e6:.1f} M MACs, "
        f"{task}, {images} images, recalibrated on {calibration}, {THREADS} threads"
    )
    print(f"  scored   {scored * 1e3:8.0f} ms a candidate")
    print(f"  plain    {plain * 1e3:8.0f} ms; scored / plain {against_plain:.3f} (target 1.15)")
    print(f"  released {former * 1e3:8.0f} ms; released / scored {against_former:.2f} (target 2)")
    print(
        f"  all scored in {total:.0f} s, {total * 100 / len(rows):.0f} s for 100 "
        f"(target {TARGET_S:.0f})"
    )


def random_weights(space: SearchSpace) -> SupernetWeights:
    """Weights that no training has seen."""
    torch.manual_seed(0)
    backbone = Supernet(space).backbone
    projector = Projector(backbone.feature_dim, 512, 128, bn=True)
    state, head = backbone.state_dict(), projector.state_dict()
    return SupernetWeights(space, state, head, state, head)


def averaging(space: SearchSpace, mean_macs: float, count: int) -> list[Architecture]:
    """Random architectures whose MACs have about the given mean."""
    macs = space.sums(lambda block: block.macs)(None)
    order = np.argsort(macs)
    # From a part of the space, the smallest first, that is as large as the mean allows.
    means = np.cumsum(macs[order]) / np.arange(1, len(order) + 1)
    part = order[: max(count, int(np.searchsorted(means, mean_macs)))]
    chosen = np.random.default_rng(0).choice(part, count, replace=False)
    return [space.architecture(int(index)) for index in chosen]


@torch.inference_mode()
def forward(network: nn.Module, images: torch.Tensor) -> None:
    """The plain forward passes of a network in evaluation mode."""
    for batch in images.split(BATCH):
        network(batch)


@torch.no_grad()
def released(network: nn.Module, largest: nn.Module, images: torch.Tensor) -> float:
    """DATA's score: both networks run, the candidate in training mode."""
    network.train()
    found = [cosine_of_embeddings(network(b), largest(b)) for b in images.split(BATCH)]
    network.eval()
    return float(torch.cat(found).mean())


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
