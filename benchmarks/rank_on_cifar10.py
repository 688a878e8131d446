"""Does the score order the subnets of a supernet as their accuracy does?

A space whose largest network costs 38 times the smallest is trained with SimCLR by a shortened
recipe; then its latency table is measured, and `edgesearch rank` scores and evaluates subnets from
all over it. What is overridden in the shipped configuration is printed. Started again with the
same output folder, it goes on where it was stopped.

Targets: tau of agreement over all subnets at least 0.6, and within bins of equal latency above that
of MACs and of parameters; only differences outside their interval count.

Usage: python benchmarks/rank_on_cifar10.py IMAGES OUTPUT_DIR [KEY=VALUE ...]
(IMAGES: a folder such as the configurations of CIFAR-10 want; further overrides such as
pretrain.epochs=2 for a trial).
"""

from __future__ import annotations

import sys

from machine import print_machine

import edgesearch
from edgesearch.cli.results import print_rank
from edgesearch.evaluate.rank_correlation import RankCorrelation
from edgesearch.events import Event

CONFIG = "cifar10_simclr"
OVERRIDES = (
    "space.name=cifar_wide",
    "space.family=resnet",
    "space.block=basic",
    "space.stem=small",
    "space.stem_stride=2",
    "space.stem_widths=[8, 16]",
    "space.stage_widths=[[8, 16, 32], [16, 32, 64], [16, 32, 64, 128]]",
    "space.stage_depths=[[1, 2], [1, 2], [1, 2]]",
    "space.resolutions=[32]",
    "pretrain.epochs=12",
    "pretrain.batch_size=128",
    "pretrain.optimizer=sgd",
    "pretrain.lr=0.1",
    "pretrain.weight_decay=5.0e-4",
    "pretrain.warmup_epochs=1",
    "pretrain.temperature=0.2",
    "pretrain.projector_hidden_dim=256",
    "pretrain.knn_every_epochs=4",
    "pretrain.threads=1",
    "evaluation.test_images=10000",
)
TARGET_TAU = 0.6
COSTS = ("MACs", "parameters")


def main() -> None:
    """Train, profile and rank what is missing; print the table and what it says."""
    images, output_dir, *given = sys.argv[1:]
    place = [f"data.root={images}", f"output_dir={output_dir}"]
    run = edgesearch.Run(CONFIG, *OVERRIDES, *given, *place, report=tell)
    print_machine()
    print(f"rank_on_cifar10: {CONFIG} {' '.join([*OVERRIDES, *given])}", flush=True)
    run.profile()
    run.pretrain()
    result = run.rank()
    print_rank(result)
    agreement, *others = result.scores
    print(f"  tau of agreement {agreement.tau.value:.3f} (target {TARGET_TAU})")
    for other in others:
        if other.score in COSTS:
            print(f"  within bins, agreement less {other.score}: {difference(other)}")


def difference(other: RankCorrelation) -> str:
    """By how much the tau of agreement within bins is above another one, and what that says."""
    found = other.behind_within
    verdict = "above" if found.low > 0 else "below" if found.high < 0 else "no difference shown"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f}): {verdict}"


def tell(event: Event) -> None:
    """Show how far it is, away from the results."""
    print(event, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
