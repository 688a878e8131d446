"""How many evaluations the strategies need, on real scores of a real supernet.

A supernet of 16,384 architectures is trained on scikit-learn's digits for a few minutes. Each
architecture that a strategy asks for is scored as `edgesearch search` scores it, once: scores are
kept in FOLDER, and the strategies replay on them. Within half of the largest network's MACs, for
each seed: the best of 1,000 random candidates, after how many evaluations the default strategy is
as good, and what the others come to in the same time. Time is that of proposing, as measured, and
for each evaluation the median time that scoring takes.

Usage: python benchmarks/search_strategies.py [FOLDER] [SEEDS]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from machine import print_machine

from edgesearch.cli.stages import pretrain_arguments
from edgesearch.config import load_config
from edgesearch.data.image_pool import ImagePool
from edgesearch.search.agreement import ScoreOptions
from edgesearch.search.budgets import Budgets, Range
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.scoring import make_agreement
from edgesearch.search.strategies import make_strategy
from edgesearch.space import Architecture
from edgesearch.stages import SearchImages, pretrain
from edgesearch.supernet.weights import SupernetWeights

RANDOM, EVALUATIONS, TIMED = 1000, 100, 40
POPULATION = 25
"""Of the evolution: it has to evolve within the hundred or so evaluations that the time allows."""
SPACE = {
    "stem_stride": 2,
    "stem_widths": [4, 8, 12, 16],
    "stage_widths": [[8, 12, 16, 24], [12, 16, 24, 32], [24, 32, 48, 64]],
    "stage_depths": [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]],
    "resolutions": [16],
}


class ScoresOnce:
    """The score of a supernet; each architecture's score is kept in a file.

    Args:
        folder: Gets the supernet and the scores.
    """

    def __init__(self, folder: Path) -> None:
        overrides = [f"space.{name}={json.dumps(values)}" for name, values in SPACE.items()]
        overrides += [f"output_dir={folder}", "pretrain.epochs=30", "pretrain.threads=1"]
        arguments = pretrain_arguments(load_config("quickstart", overrides))
        path = pretrain(**arguments).weights_path
        self.space = arguments["space"]
        pool = ImagePool(arguments["images"], self.space.in_channels, 0)
        looked_at = SearchImages(images=256, calibration_images=256, batch_size=128)
        weights = SupernetWeights.load(path, self.space)
        self.score = make_agreement(weights, pool, looked_at, ScoreOptions())
        self.path = folder / "scores.jsonl"
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        self.known = dict(json.loads(line)[:2] for line in lines)

    def __call__(self, architecture: Architecture) -> float:
        """The score; it is computed once."""
        text = str(architecture)
        if text not in self.known:
            self.known[text] = self.score(architecture)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([text, self.known[text]]) + "\n")
        return self.known[text]

    def seconds(self, feasible: FeasibleSet) -> float:
        """The median time that scoring takes, of some architectures."""
        found = []
        for index in feasible.indices[:: max(1, len(feasible.indices) // TIMED)][:TIMED]:
            start = time.perf_counter()
            self.score(self.space.architecture(int(index)))
            found.append(time.perf_counter() - start)
        return statistics.median(found)


def replay(
    name: str,
    scores: ScoresOnce,
    feasible: FeasibleSet,
    evaluations: int,
    seed: int,
    score_s: float,
    most_s: float = float("inf"),
) -> tuple[list[float], float]:
    """The scores in the order of evaluation, and the seconds of scoring and proposing."""
    strategy = make_strategy(
        name, feasible, evaluations=evaluations, population=POPULATION, seed=seed
    )
    found: list[float] = []
    spent_s = 0.0
    while len(found) < evaluations and spent_s < most_s:
        start = time.perf_counter()
        proposals = strategy.ask()
        spent_s += time.perf_counter() - start
        if not proposals:
            break
        told = {}
        for proposal in proposals[: evaluations - len(found)]:
            told[proposal] = scores(proposal)
            found.append(told[proposal])
            spent_s += score_s
        if len(told) == len(proposals):
            start = time.perf_counter()
            strategy.tell(told)
            spent_s += time.perf_counter() - start
    strategy.close()
    return found, spent_s


def main() -> None:
    """Print a line for each seed, and medians."""
    print_machine()
    torch.set_num_threads(1)
    scores = ScoresOnce(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/search_strategies"))
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    space = scores.space
    macs = space.sum_over_blocks(lambda block: block.macs)
    budgets = Budgets(macs=Range(max=0.5 * float(macs.max())))
    feasible = FeasibleSet(space, macs / 1e9, budgets, 1.0)  # no latency is bounded here
    print(f"search_strategies: {len(feasible.indices):,} of {space.size:,} architectures feasible")
    score_s = scores.seconds(feasible)
    print(f"  scoring one takes {score_s * 1e3:.1f} ms")
    print("  seed  best of 1,000 random   default: best of 100, reaches it after, seconds")
    rows = []
    others = ("evolution", "tpe", "random")
    for seed in range(seeds):
        chance = max(replay("random", scores, feasible, RANDOM, 1000 + seed, score_s)[0])
        found, spent_s = replay("surrogate", scores, feasible, EVALUATIONS, seed, score_s)
        after = next((n for n, score in enumerate(found, 1) if score >= chance), 10**6)
        row = {"chance": chance, "surrogate": max(found), "after": after, "seconds": spent_s}
        for name in others:
            other, _ = replay(name, scores, feasible, RANDOM, seed, score_s, spent_s)
            row[name] = max(other)
            row[f"{name} n"] = len(other)
        rows.append(row)
        compared = ", ".join(f"{name} {row[name]:.5f} ({row[f'{name} n']})" for name in others)
        print(
            f"  {seed:4}  {chance:.5f}   {max(found):.5f}, {after}, {spent_s:.1f} s; in the same "
            f"time: {compared}"
        )
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    print(f"  median evaluations until the best of 1,000 random: {middle['after']} (target 100)")
    print(
        f"  median best: default {middle['surrogate']:.5f} in {middle['seconds']:.1f} s, "
        + ", ".join(f"{name} {middle[name]:.5f}" for name in others)
        + f" in the same time, 1,000 random {middle['chance']:.5f}"
    )


if __name__ == "__main__":
    main()
