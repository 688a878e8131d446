"""kNN accuracy of every method of pre-training after one shortened recipe, beside random weights.

Each method trains the same small space on the same images for the same number of epochs, by the
stage `pretrain` itself and from the method's shipped configuration; what is overridden is printed.
Accuracies are those of held-out images, after recalibration, as in `edgesearch evaluate`. Started
again with the same output folder, it goes on where it was stopped.

Usage: python benchmarks/ssl_methods.py IMAGES OUTPUT_DIR [METHOD ...] [KEY=VALUE ...]
(IMAGES: a folder such as the configurations of CIFAR-10 want; all five methods by default; further
overrides such as pretrain.epochs=2 for a trial).
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from machine import print_machine
from subnets import SUBNETS, knn_judge, named_subnets

from edgesearch import Run
from edgesearch.evaluate.comparison import Subject
from edgesearch.events import Event

CONFIGS = {
    "moco_v2": "cifar10",
    "densecl": "cifar10_densecl",
    "ressl": "cifar10_ressl",
    "byol": "cifar10_byol",
    "simclr": "cifar10_simclr",
}
SHARED = (
    "space.name=resnet_tiny",
    "space.stage_widths=[[16, 24], [32, 48], [64, 96, 160]]",
    "space.stage_depths=[[1], [1], [1]]",
    "pretrain.epochs=10",
    "pretrain.batch_size=128",
    "pretrain.optimizer=sgd",
    "pretrain.lr=0.1",
    "pretrain.weight_decay=5.0e-4",
    "pretrain.warmup_epochs=1",
    "pretrain.projector_hidden_dim=256",
    "pretrain.projector_dim=128",
    "pretrain.threads=1",
    "pretrain.knn_every_epochs=5",
)
OWN = {
    "moco_v2": ("pretrain.queue_size=2048",),
    "densecl": ("pretrain.queue_size=2048",),
    "ressl": ("pretrain.queue_size=2048",),
    "byol": ("pretrain.predictor_hidden_dim=256",),
    "simclr": ("pretrain.temperature=0.2",),
}
"""What one method alone has, or needs otherwise; the rest is as in its configuration."""


def main() -> None:
    """Train what is missing, and print the table and a line of JSON for each method."""
    images, output_dir, *rest = sys.argv[1:]
    given = [text for text in rest if "=" in text]
    methods = [text for text in rest if "=" not in text] or list(CONFIGS)
    print_machine()
    print(f"ssl_methods: {' '.join([*SHARED, *given])}")
    rows: list[dict[str, Any]] = []
    for method in methods:
        print(f"  {method}: {' '.join(OWN[method])}, the rest as in {CONFIGS[method]}", flush=True)
        place = [f"data.root={images}", f"output_dir={Path(output_dir) / method}"]
        run = Run(CONFIGS[method], *SHARED, *OWN[method], *given, *place, report=tell)
        run.pretrain()
        rows += accuracies(method, run, with_references=not rows)
    print(f"  {'':28}{''.join(f'{name:>10}' for name in SUBNETS)}   loss, first and last epoch")
    for row in rows:
        knn = "".join(f"{row[name]:10.1%}" if name in row else " " * 10 for name in SUBNETS)
        loss = "   {loss_first:.3f} {loss_last:.3f}".format(**row) if "loss_first" in row else ""
        print(f"  {row['name']:28}{knn}{loss}")
    for row in rows:
        print(json.dumps(row))


def accuracies(method: str, run: Run, *, with_references: bool) -> list[dict[str, Any]]:
    """The rows of a trained method: raw pixels and random weights before it if asked for."""
    space = run.space
    subnets, knn = named_subnets(space), knn_judge(run)
    rows: list[dict[str, Any]] = []
    if with_references:
        for name, subnet in subnets.items():
            print(f"  {name}: {subnet}, {space.macs(subnet) / 1e6:.1f} M MACs")
        rows += [
            {"name": "raw pixels", "largest": knn(Subject("raw pixels"))},
            {"name": "random weights"}
            | {name: knn(Subject(name, subnet, False)) for name, subnet in subnets.items()},
        ]
    metrics = (run.files.supernet / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in metrics]
    return [
        *rows,
        {"name": method}
        | {name: knn(Subject(name, subnet)) for name, subnet in subnets.items()}
        | {
            "loss_first": epochs[0]["loss_largest"],
            "loss_last": epochs[-1]["loss_largest"],
            "epochs": len(epochs),
            "minutes": sum(epoch["duration_s"] for epoch in epochs) / 60,
            "images_per_s": statistics.median(epoch["images_per_s"] for epoch in epochs),
        },
    ]


def tell(event: Event) -> None:
    """Show how far it is, away from the results."""
    print(event, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
