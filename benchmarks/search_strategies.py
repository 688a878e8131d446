"""How many evaluations the strategies need, on real scores of a real supernet.

A supernet of 16,384 architectures is trained on scikit-learn's digits for a few minutes, or with
--config that of a configuration as it says. Each architecture that a strategy asks for is scored as
`edgesearch search` scores it, once: scores are kept in FOLDER, and the strategies replay on them.
Within half of the largest network's MACs, for each seed: the best of 1,000 random candidates, after
how many evaluations the default strategy is as good, and what the others come to in the same time.
Time is that of proposing, as measured, and for each evaluation the median time that scoring takes.

Usage: python benchmarks/search_strategies.py [--folder FOLDER] [--seeds N]
    [--config NAME [KEY=VALUE ...]]
For a large space of mobile networks:

    python benchmarks/search_strategies.py --config photos_mobile_v4 data.root=PHOTOS \
        "space.resolutions=[96]" pretrain.epochs=4 search.images=64 search.calibration_images=64
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

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


class ScoresOnce:
    """The score of a supernet; each architecture's score is kept in a file.

    Args:
        folder: Gets the supernet and the scores.
        config: Configuration of the supernet; that of the digits if None.
        overrides: Values of the configuration.
    """

    def __init__(self, folder: Path, config: str | None, overrides: Sequence[str]) -> None:
        places = [f"output_dir={folder}", "pretrain.threads=1"]
        if config is None:
            digits = [f"space.{name}={json.dumps(values)}" for name, values in SPACE.items()]
            run = edgesearch.Run("quickstart", *digits, *places, "pretrain.epochs=30", *overrides)
            settings = SearchSettings(images=256, calibration_images=256, batch_size=128)
        else:
            run = edgesearch.Run(config, *places, *overrides)
            settings = run.config.search
        run.pretrain()
        self.space = run.space
        self.score = make_agreement(run.load_weights(), run.open_images(), settings)
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
        for architecture in itertools.islice(feasible.in_random_order(0), TIMED):
            start = time.perf_counter()
            self.score(architecture)
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
    settings = SearchSettings(
        strategy=name, evaluations=evaluations, population=min(POPULATION, evaluations // 4)
    )
    strategy = make_strategy(feasible, settings, seed)
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
    return found, spent_s


def main() -> None:
    """Print a line for each seed, and medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("runs/search_strategies"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--config")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    seeds = options.seeds
    print_machine()
    torch.set_num_threads(1)
    scores = ScoresOnce(options.folder, options.config, options.overrides)
    space = scores.space
    latencies = DeviceLatencies(space.sums(lambda block: block.macs), 1.0)  # they bound nothing
    costs = Costs(space, DeviceSpec("local-cpu"), latencies)
    feasible = find_feasible(costs, Budgets(macs=0.5 * space.macs(space.largest)))
    given = " ".join([*([options.config] if options.config else ()), *options.overrides])
    print(f"search_strategies {given}: {feasible.count} architectures feasible", flush=True)
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
            f"time: {compared}",
            flush=True,
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
