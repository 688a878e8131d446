"""Does the label-free score order architectures of one latency as their trained networks stand?

The winner and random architectures of its predicted latency (`edgesearch compare`, section
`compare`) are fine-tuned alone, from the same start and by one recipe. Kendall's tau with their
metric on test images is printed for the score of the search, for multiply-accumulates, for
parameters, and, with class labels, for the linear accuracy of their features inside the supernet,
with 95 % bootstrap intervals over networks.

Usage: python benchmarks/score_or_accuracy.py CONFIG [KEY=VALUE ...]
(CONFIG with a task and a finished search; it continues where it was stopped)
"""

from __future__ import annotations

import sys

import numpy as np
from machine import print_machine

import edgesearch
from edgesearch.compare.candidates import RANDOM, WINNER
from edgesearch.evaluate.rank_correlation import rank_correlations
from edgesearch.events import Event, silent
from edgesearch.stages.evaluate import make_judge
from edgesearch.stages.scorer import make_scorer

NETWORKS = 16
ALONE = ("compare.baselines=[]", "compare.ends=false", "compare.scaled=false", "compare.int8=false")


def main() -> None:
    """Train what is not trained yet, and print the table."""
    config, *given = sys.argv[1:]
    count = f"compare.random={NETWORKS - 1}"
    run = edgesearch.Run(config, *ALONE, count, "compare.seeds=1", *given, report=tell)
    print_machine()
    print(f"score_or_accuracy: {config} {' '.join(given)}", flush=True)
    rows = [row for row in run.compare().rows if row.kind in (WINNER, RANDOM)]
    space, pool, weights = run.space, run.open_images(), run.load_weights()
    architectures = [space.from_text(row.architecture or "") for row in rows]
    score = make_scorer(run, weights, pool, silent)
    columns = {
        "score of the search": [score(each) for each in architectures],
        "MACs": [space.macs(each) for each in architectures],
        "parameters": [space.params(each) for each in architectures],
    }
    if pool.has_labels:
        judge = make_judge(run, pool)
        columns["linear accuracy inside the supernet"] = [
            judge.linear(judge.features(weights.subnet(each), each.resolution))
            for each in architectures
        ]
    metrics = np.array([row.mean for row in rows])
    latencies = [row.latency_ms for row in rows]
    print(
        f"  {len(rows)} networks, {min(latencies):.3f} to {max(latencies):.3f} ms with heads; "
        f"{run.config.finetune.task}: {100 * metrics.min():.1f} to {100 * metrics.max():.1f} %, "
        f"of the winner {100 * metrics[0]:.1f} %, median {100 * np.median(metrics):.1f} %"
    )
    values = {name: np.array(column, float) for name, column in columns.items()}
    print(f"  {'':36} {'tau':>6}   95 % interval")
    for found in rank_correlations(values, metrics, np.zeros(len(rows), int)):
        tau = found.tau
        print(f"  {found.score:36} {tau.value:6.2f}   {tau.low:.2f} to {tau.high:.2f}")


def tell(event: Event) -> None:
    """Show the trainings."""
    if event.stage == "compare" and not event.within:
        print(f"  {event.message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
