"""Where subnets should begin and what they should learn, at equal processor time.

Six recipes train subnets of EfficientNet-Lite0 on the same images: from random weights or public
ones, by MoCo v2, by distillation within the step, or by a teacher; beside them, public weights that
are only recalibrated. Each gets the same processor time, whatever a step costs; what a teacher's
embeddings cost is taken from its share. The trainings are those of the stage `pretrain`, from the
configuration `photos_taught`; a line says what each recipe changes. Accuracies are those of
held-out images, by kNN (k = 20) and by a linear probe, of the smallest, three random and the
largest subnet. A standard error holds the test images, p (1 - p) / M, and the seeds, s² / n.

Usage: python benchmarks/weights_and_teacher.py IMAGES OUTPUT_DIR TEACHER.onnx [--seconds N]
[--seeds N] [--only RECIPE ...] [KEY=VALUE ...] (IMAGES: a folder of class folders; 300 s and two
seeds by default; further overrides such as space.resolutions=[128]). Started again with the same
output folder, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from machine import print_machine

from edgesearch import Run
from edgesearch.evaluate.comparison import Comparison, Subject
from edgesearch.events import Event, silent
from edgesearch.pretrain.faithful import choose_step
from edgesearch.pretrain.make_trainer import make_trainer
from edgesearch.pretrain.sandwich import sandwich_architectures
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.evaluate import make_judge

SHARED = (
    "space.resolutions=[96]",
    "pretrain.threads=1",
    "pretrain.workers=0",
    "pretrain.knn_every_epochs=0",
    "evaluation.knn_k=20",
)
MOCO = (
    "pretrain.method=moco_v2",
    "pretrain.teacher=null",
    "pretrain.optimizer=adamw",
    "pretrain.lr=0.001",
    "pretrain.weight_decay=0.02",
    "pretrain.clip_gradient=5",
    "pretrain.queue_size=512",
    "pretrain.ema_momentum=0.99",
    "pretrain.projector_hidden_dim=512",
    "pretrain.projector_bn=true",
)
RANDOM = ("pretrain.init=null",)
RECIPES = {
    "random weights + MoCo v2": (*RANDOM, *MOCO),
    "random weights + teacher": RANDOM,
    "recalibration only": ("pretrain.epochs=0",),
    "public weights + MoCo v2": MOCO,
    "public weights + in-place distillation": (
        "pretrain.teacher={init: true, size: 160, crops: 2}",
        "pretrain.distill=1",
    ),
    "public weights + teacher": (),
}
"""What differs from `photos_taught`. The teacher of the last but one is the public weights."""
STEPS = 6
"""Steps that are timed, after two others."""


def main() -> None:
    """Train and evaluate what is missing, and print the table and a line of JSON for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=RECIPES)
    options, given = parser.parse_known_args()
    print_machine()
    print(f"weights_and_teacher: {options.seconds:g} s of one core each; {' '.join(given)}")
    place = (f"data.root={options.images}", f"pretrain.teacher.onnx={options.teacher}")
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for name in options.only:
            trained = "pretrain.epochs=0" not in RECIPES[name]
            if seed and not trained:
                continue  # the same for every seed
            folder = options.folder / f"{name.replace(' ', '_')}_{seed}"
            if not (folder / "result.json").exists():
                own = (*SHARED, *place, *given, *RECIPES[name])
                overrides = (*own, f"seed={seed}", f"output_dir={folder}")
                found = trial(overrides, options.seconds if trained else 0)
                (folder / "result.json").write_text(json.dumps(found))
            found = json.loads((folder / "result.json").read_text())
            results.setdefault(name, []).append(found)
            print(json.dumps({"recipe": name, "seed": seed, **found}), flush=True)
    report(results)


def trial(overrides: tuple[str, ...], seconds: float) -> dict[str, Any]:
    """Train for some processor time, and evaluate."""
    epochs, taught_s, began = 0, 0.0, 0.0
    if seconds:
        taught_s, epoch_s = costs(Run("photos_taught", *overrides, "pretrain.epochs=1"))
        epochs = max(1, round((seconds - taught_s) / epoch_s))
        warmup = f"pretrain.warmup_epochs={min(1, epochs - 1)}"
        overrides = (*overrides, f"pretrain.epochs={epochs}", warmup)
    run = Run("photos_taught", *overrides, report=tell)
    began = time.process_time()
    run.pretrain()
    trained_s = time.process_time() - began
    return {
        "epochs": epochs,
        "teacher_s": round(taught_s, 1),
        "training_s": round(trained_s, 1),
        **accuracies(run),
    }


def costs(run: Run) -> tuple[float, float]:
    """Processor time of a teacher's embeddings, which are kept, and of an epoch."""
    settings, folder, taught_s = run.config.pretrain, run.files.output_dir, 0.0
    folder.mkdir(parents=True, exist_ok=True)
    if settings.teacher is not None:  # embeddings are shared by all trainings
        kept = folder.parent / ("teacher_init" if settings.teacher.init else "teacher_onnx")
        kept.mkdir(exist_ok=True)
        if not (folder / "teacher").exists():
            (folder / "teacher").symlink_to(kept.resolve())
    pool, seed = run.open_images(), run.config.seed
    trainer = make_trainer(settings, seed, run.space, pool, run.files.supernet, {}, silent)
    if trainer.teaching is not None:
        if not (kept / "seconds.json").exists():
            began = time.process_time()
            trainer.teaching.fill(lambda: None)
            (kept / "seconds.json").write_text(json.dumps(time.process_time() - began))
        taught_s = json.loads((kept / "seconds.json").read_text())
    method, step = trainer.method.train(), choose_step(trainer.method, settings)
    batches = trainer.loader.batches(0, 0)
    took: list[float] = []
    for number in range(2 + STEPS):
        began = time.process_time()
        views = next(batches)
        subnets = sandwich_architectures(run.space, settings.random_subnets, 0, number)
        step(method, views, subnets, trainer.optimizer)
        took.append(time.process_time() - began)
    batches.close()
    return taught_s, statistics.median(took[2:]) * trainer.loader.steps_per_epoch


def named_subnets(space: SearchSpace) -> dict[str, Architecture]:
    """The smallest, three random ones, and the largest."""
    rng = random.Random(0)
    drawn = sorted((space.sample(rng) for _ in range(3)), key=space.macs)
    return {
        "smallest": space.smallest,
        **{f"random {number}": subnet for number, subnet in enumerate(drawn, 1)},
        "largest": space.largest,
    }


def accuracies(run: Run) -> dict[str, Any]:
    """kNN and linear accuracy of each subnet, and the number of test images."""
    pool = run.open_images()
    comparison = Comparison(run.load_weights(), make_judge(run, pool))
    found: dict[str, Any] = {}
    for name, subnet in named_subnets(run.space).items():
        features = comparison.features(Subject(name, subnet))
        judge = comparison.judge
        found[name] = {"knn": judge.knn(features), "linear": judge.linear(features)}
        found["test_images"] = len(features.test_labels)
    return found


def report(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print a table for each kind of accuracy."""
    subnets = [name for name in next(iter(results.values()))[0] if name.split()[0] in NAMED]
    for kind in ("knn", "linear"):
        print(f"  {kind:40}" + "".join(f"{name:>16}" for name in subnets))
        for recipe, found in results.items():
            cells = [cell([one[name][kind] for one in found], found[0]) for name in subnets]
            print(f"  {recipe:40}" + "".join(f"{text:>16}" for text in cells))
    for recipe, found in results.items():
        spent = ", ".join(
            f"{one['teacher_s']:.0f} + {one['training_s']:.0f} s ({one['epochs']} epochs)"
            for one in found
        )
        print(f"  {recipe:40} teacher + training {spent}")


NAMED = ("smallest", "random", "largest")


def cell(values: list[float], run: dict[str, Any]) -> str:
    """Mean and standard error, in per cent."""
    mean, count = statistics.fmean(values), len(values)
    squared = mean * (1 - mean) / run["test_images"]
    if count > 1:
        squared += statistics.variance(values) / count
    return f"{100 * mean:.1f} ± {100 * math.sqrt(squared):.1f}"


def tell(event: Event) -> None:
    """Show how far it is, away from the results."""
    print(event, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
