"""How much of the forward passes is saved where candidates of a batch begin alike.

The default strategy goes through `resnet_small`, within half of the largest network's MACs, led by
the real scores of random weights on few images. The convolutions' multiply-accumulates are counted
as they run, in recalibration and scoring, and compared with those of each candidate alone. Then the
same batches are shared out among processes, each of which shares beginnings within its own part.

Usage: python benchmarks/shared_beginnings.py [CANDIDATES] [AT_ONCE] (200 8 by default).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from score_cost import random_weights
from torch import nn

from devices import DeviceSpec
from edgesearch.families import load_space
from edgesearch.processes.shared_work import shares
from edgesearch.search.agreement import Agreement
from edgesearch.search.beginnings import families
from edgesearch.search.costs import Costs, DeviceLatencies
from edgesearch.search.feasible import find_feasible
from edgesearch.search.settings import Budgets, SearchSettings
from edgesearch.search.strategies.strategy import make_strategy
from edgesearch.space import Architecture, SearchSpace

IMAGES = 16
PROCESSES = (1, 2, 4)


def main() -> None:
    """Print the share that is saved, counted, and for several processes."""
    candidates, at_once = (int(x) for x in (*sys.argv[1:], *("200", "8")[len(sys.argv) - 1 :]))
    space = load_space("resnet_small")
    latencies = DeviceLatencies(space.sums(lambda block: block.macs), 1.0)  # they bound nothing
    costs = Costs(space, DeviceSpec("local-cpu"), latencies)
    feasible = find_feasible(costs, Budgets(macs=0.5 * space.macs(space.largest)))
    pixels = torch.randn(2 * IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    agreement = Agreement(
        random_weights(space),
        lambda _, first, last: pixels[IMAGES + first : IMAGES + last],
        lambda _: pixels[:IMAGES],
        IMAGES,
        IMAGES,
    )
    agreement(space.largest)  # the reference, once a search
    settings = SearchSettings(evaluations=candidates, candidates_at_once=at_once)
    strategy = make_strategy(feasible, settings, seed=0)
    batches = []
    counted = Counted()
    while sum(map(len, batches)) < candidates:
        batch = space.by_beginning(strategy.ask())
        with counted:
            scores = [float(figures.mean()) for figures in agreement.all_scores(batch)]
        strategy.tell(dict(zip(batch, scores, strict=True)))
        batches.append(batch)
    whole = sum(space.macs(architecture) for batch in batches for architecture in batch)
    print(f"shared_beginnings: {candidates} candidates of {space.name}, {at_once} at once")
    print(f"  counted: {1 - counted.macs / (2 * IMAGES * whole):.1%} of the MACs are saved")
    for count in PROCESSES:
        saved = sum(saved_macs(space, batch, count) for batch in batches)
        print(f"  shared out among {count}: {saved / whole:.1%}")


class Counted:
    """While active, counts the multiply-accumulates of convolutions as they run."""

    def __init__(self) -> None:
        self.macs = 0

    def __enter__(self) -> None:
        self._hook = nn.modules.module.register_module_forward_hook(self._count)

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _count(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            self.macs += output.numel() * module.weight[0].numel()


def saved_macs(space: SearchSpace, batch: Sequence[Architecture], processes: int) -> int:
    """MACs for one image that are not run again, each process sharing within its own part."""
    costs = [float(space.macs(architecture)) for architecture in batch]
    return sum(
        block.macs
        for part in shares(batch, costs, processes)
        for family in families(space, part, IMAGES)
        for member in family
        for block in space.blocks(member.architecture)[: member.shared]
    )


if __name__ == "__main__":
    main()
