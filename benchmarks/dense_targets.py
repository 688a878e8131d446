"""Whether subnets should learn a teacher's embeddings or its maps, for a task of pixels.

Subnets of EfficientNet-Lite0 learn from the public weights themselves, as a teacher at twice the
size, for the same processor time: embeddings in one training, maps of the last stage in the other
(`pretrain.teacher.dense`). Beside them, public weights that are only recalibrated. Printed are the
agreement of places with the public weights (`search.task: segmentation`) on training images, and
the mean IoU on held-out images of a segmentation head on the frozen subnet.

Usage: python benchmarks/dense_targets.py IMAGES OUTPUT_DIR [--seconds N] [--seeds N] (IMAGES: a
folder with label maps, as for `configs/segment.yaml`; 60 s and two seeds by default). Started again
with the same output folder, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from machine import print_machine
from weights_and_teacher import named_subnets, tell, train

from edgesearch import Run
from edgesearch.events import silent
from edgesearch.pretrain.make_trainer import make_trainer
from edgesearch.stages.finetune import open_finetuning
from edgesearch.stages.scorer import make_scorer
from edgesearch.supernet.weights import SupernetWeights
from edgesearch.tasks.finetuning import Finetuning

SHARED = (
    "space.resolutions=[96]",
    "pretrain.threads=1",
    "pretrain.workers=0",
    "pretrain.knn_every_epochs=0",
    "search.reference=init",
    "search.images=128",
    "finetune.threads=1",
    "finetune.probe=true",
    "finetune.epochs=5",
)
TAUGHT = (
    "pretrain.method=distillation",
    "pretrain.batch_size=64",
    "pretrain.epochs=30",
)
RECIPES = {
    "recalibration only": (),
    "embeddings": (*TAUGHT, "pretrain.teacher={init: true, size: 192, crops: 2, dense: false}"),
    "maps": (*TAUGHT, "pretrain.teacher={init: true, size: 192, crops: 2, dense: true}"),
}
"""What differs from `segment`."""
PROBED = ("smallest", "random 2")
"""Subnets whose head is trained."""


def main() -> None:
    """Train and judge what is missing, and print a line of JSON for each run and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    print_machine()
    print(f"dense_targets: {options.seconds:g} s of one core each")
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for name, own in RECIPES.items():
            folder = options.folder / f"{name.replace(' ', '_')}_{seed}"
            if not (folder / "result.json").exists():
                place = f"data.root={options.images}", f"output_dir={folder}", f"seed={seed}"
                run = Run("segment", *SHARED, *place, *own, report=tell)
                found = trial(run, options.seconds if own else 0)
                (folder / "result.json").write_text(json.dumps(found))
            found = json.loads((folder / "result.json").read_text())
            results.setdefault(name, []).append(found)
            print(json.dumps({"recipe": name, "seed": seed, **found}), flush=True)
    for figure in ("agreement", "mean_iou"):
        names = list(next(iter(results.values()))[0][figure])
        print(f"  {figure:24}" + "".join(f"{name:>20}" for name in names))
        for recipe, runs in results.items():
            cells = (", ".join(f"{one[figure][name]:.4f}" for one in runs) for name in names)
            print(f"  {recipe:24}" + "".join(f"{text:>20}" for text in cells))


def trial(run: Run, seconds: float) -> dict[str, Any]:
    """Train for some processor time, and judge the subnets."""
    settings, pool, seed = run.config.pretrain, run.open_images(), run.config.seed
    run.files.output_dir.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(settings, seed, run.space, pool, run.files.supernet, {}, silent)
    cached_mb = 0.0
    if trainer.teaching is not None:
        trainer.teaching.fill(lambda: None)
        cached_mb = trainer.teaching.cache.path.stat().st_size / 1e6
    began = time.process_time()
    steps, losses = train(trainer, seconds) if seconds else (0, [])
    spent = round(time.process_time() - began)
    weights = trainer.weights()
    weights.save(run.files.weights)
    return {
        "steps": steps,
        "training_s": spent,
        "cached_mb": round(cached_mb, 1),
        "losses": losses,
        **judged(run, weights),
    }


def judged(run: Run, weights: SupernetWeights) -> dict[str, dict[str, float]]:
    """Agreement of places, and mean IoU of a head on the frozen subnet, by name of the subnet."""
    scorer = make_scorer(run, weights, run.open_images(), silent)
    finetuning = open_finetuning(run)
    agreement, iou = {}, {}
    for name, subnet in named_subnets(run.space).items():
        agreement[name] = scorer(subnet)
        if name in PROBED:
            iou[name] = probed(run, finetuning, name)
    return {"agreement": agreement, "mean_iou": iou}


def probed(run: Run, finetuning: Finetuning, name: str) -> float:
    """mean IoU on the test images."""
    model = finetuning.subnet(named_subnets(run.space)[name])
    folder = run.files.finetune / name.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    figures = finetuning.train(model, folder, name, {"subnet": name}).figures
    print(name, figures, file=sys.stderr)
    return figures["mean_iou"]


if __name__ == "__main__":
    main()
