"""How many evaluations the strategies need, on real scores of a real supernet.

Without a configuration a supernet of 16,384 architectures is trained on scikit-learn's digits for a
few minutes; with one, its own. Each architecture that a strategy asks for is scored as `edgesearch
search` scores it, once: scores are kept in FOLDER, and the strategies replay on them; a run that
was stopped goes on. Within half of the largest network's MACs, for each seed: the best of 1,000
random candidates, after how many evaluations the default strategy is as good, and what the others
come to in the same time. Time is that of proposing, as measured, and for each evaluation the median
time that scoring takes, both on one thread.

Usage: python benchmarks/search_strategies.py [--folder FOLDER] [--seeds N] [--images N]
       [--config CONFIG [OVERRIDE …]]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from typing import NamedTuple

import torch
from machine import print_machine

import edgesearch
from devices import DeviceSpec
from edgesearch.search.agreement import make_agreement
from edgesearch.search.costs import Costs, DeviceLatencies
from edgesearch.search.feasible import FeasibleSet, find_feasible
from edgesearch.search.settings import Budgets, SearchSettings
from edgesearch.search.strategies.strategy import make_strategy
from edgesearch.space import Architecture

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


SMALL = [
    *(f"space.{name}={json.dumps(values)}" for name, values in SPACE.items()),
    "pretrain.epochs=30",
    "pretrain.threads=1",
]


class ScoresOnce:
    """The score of a supernet; each architecture's score is kept in a file.

    Args:
        run: Its output folder gets the supernet and the scores.
        images: Images of the score, and as many to calibrate the normalisations on.
    """

    def __init__(self, run: edgesearch.Run, images: int) -> None:
        run.pretrain()
        self.space = run.space
        settings = SearchSettings(images=images, calibration_images=images, batch_size=128)
        self.score = make_agreement(run.load_weights(), run.open_images(), settings)
        self.path = run.config.output_dir / f"scores-{images}.jsonl"
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
        for architecture in itertools.islice(feasible.in_random_order(0), TIMED):
            start = time.process_time()
            self.score(architecture)
            found.append(time.process_time() - start)
        return statistics.median(found)


class Replay(NamedTuple):
    """Scores in the order of evaluation, and the seconds of scoring and of proposing."""

    scores: list[float]
    scoring_s: float
    proposing_s: float


def replay(
    name: str,
    scores: ScoresOnce,
    feasible: FeasibleSet,
    evaluations: int,
    seed: int,
    score_s: float,
    most_s: float = float("inf"),
) -> Replay:
    """Let a strategy propose and learn, for `evaluations` or at most `most_s` seconds."""
    settings = SearchSettings(
        strategy=name, evaluations=evaluations, population=min(POPULATION, evaluations // 4)
    )
    strategy = make_strategy(feasible, settings, seed)
    found: list[float] = []
    proposing_s = 0.0
    while len(found) < evaluations and len(found) * score_s + proposing_s < most_s:
        start = time.process_time()
        proposals = strategy.ask()
        proposing_s += time.process_time() - start
        if not proposals:
            break
        told = {each: scores(each) for each in proposals[: evaluations - len(found)]}
        found.extend(told.values())
        if len(told) == len(proposals):
            start = time.process_time()
            strategy.tell(told)
            proposing_s += time.process_time() - start
    return Replay(found, len(found) * score_s, proposing_s)


def main() -> None:
    """Print a line for each seed, and medians."""
    parser = argparse.ArgumentParser(description="How many evaluations the strategies need.")
    parser.add_argument("--folder", default="runs/search_strategies")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--config")
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*")
    options = parser.parse_args()
    print_machine()
    torch.set_num_threads(1)
    config, overrides = (options.config, options.overrides) if options.config else (None, SMALL)
    run = edgesearch.Run(config or "quickstart", f"output_dir={options.folder}", *overrides)
    scores = ScoresOnce(run, options.images)
    space = scores.space
    latencies = DeviceLatencies(space.sums(lambda block: block.macs), 1.0)  # they bound nothing
    costs = Costs(space, DeviceSpec("local-cpu"), latencies)
    feasible = find_feasible(costs, Budgets(macs=0.5 * space.macs(space.largest)))
    print(f"search_strategies: {' '.join([config or 'digits', *options.overrides])}")
    print(f"  {feasible.count} architectures of {space.size:,} feasible")
    score_s = scores.seconds(feasible)
    print(f"  scoring one on {options.images} images takes {score_s * 1e3:.1f} ms")
    print("  seed  best of 1,000 random   default: best of 100, reaches it after")
    rows = []
    others = ("evolution", "tpe", "random")
    for seed in range(options.seeds):
        chance = max(replay("random", scores, feasible, RANDOM, 1000 + seed, score_s).scores)
        own = replay("surrogate", scores, feasible, EVALUATIONS, seed, score_s)
        spent_s = own.scoring_s + own.proposing_s
        after = next((n for n, score in enumerate(own.scores, 1) if score >= chance), 10**6)
        row = {"chance": chance, "surrogate": max(own.scores), "after": after, "seconds": spent_s}
        row["proposing"] = own.proposing_s
        for name in others:
            other = replay(name, scores, feasible, RANDOM, seed, score_s, spent_s).scores
            row[name] = max(other)
            row[f"{name} n"] = len(other)
        rows.append(row)
        compared = ", ".join(f"{name} {row[name]:.5f} ({row[f'{name} n']})" for name in others)
        print(
            f"  {seed:4}  {chance:.5f}   {max(own.scores):.5f}, {after}; scoring "
            f"{own.scoring_s:.1f} s, proposing {own.proposing_s:.1f} s, ratio "
            f"{own.proposing_s / own.scoring_s:.2f}; in the same time: {compared}",
            flush=True,
        )
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    most = max(row["after"] for row in rows)
    print(
        f"  evaluations until the best of 1,000 random: median {middle['after']}, most {most} "
        f"(target {EVALUATIONS})"
    )
    print(
        f"  median best: default {middle['surrogate']:.5f} in {middle['seconds']:.1f} s "
        f"({middle['proposing']:.1f} s of them proposing), "
        + ", ".join(f"{name} {middle[name]:.5f}" for name in others)
        + f" in the same time, 1,000 random {middle['chance']:.5f}"
    )


if __name__ == "__main__":
    main()
