"""Where subnets should begin and what they should learn, at equal processor time.

Five recipes train subnets of EfficientNet-Lite0 on the same images: from random weights or public
ones, by MoCo v2, by distillation within the step, or by a teacher; beside them, public weights
that are only recalibrated. Each training gets the same processor time, whatever a step costs, and
the learning rate falls with it. A teacher's embeddings, computed once for all trainings on these
images, come on top and are printed. Settings are those of the configuration `photos_taught`;
RECIPES says what each changes. Accuracies are those of held-out images, by kNN (k = 20) and by a
linear probe, of the smallest, three random and the largest subnet. A standard error holds the test
images, p (1 - p) / M, and the seeds, s^2 / n.

Usage: python benchmarks/weights_and_teacher.py IMAGES OUTPUT_DIR TEACHER.onnx [--seconds N]
[--seeds N] [--only RECIPE ...] [--set KEY=VALUE ...] [--kinds KIND ...] (IMAGES: a folder of class
folders; 240 s and two seeds by default; settings such as space.resolutions=[128]). Started again
with the same output folder, it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from machine import print_machine

from edgesearch import Run
from edgesearch.evaluate.comparison import Comparison, Subject
from edgesearch.events import Event, silent
from edgesearch.pretrain.faithful import choose_step
from edgesearch.pretrain.make_trainer import make_trainer
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.sandwich import sandwich_architectures
from edgesearch.pretrain.trainer import Trainer
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.evaluate import make_judge
from edgesearch.supernet.weights import SupernetWeights

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
    "search.reference=key",
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
    "recalibration only": (*MOCO, "pretrain.epochs=0"),
    "public weights + MoCo v2": MOCO,
    "public weights + in-place distillation": (
        "pretrain.teacher={init: true, size: 160, crops: 2}",
        "pretrain.distill=1",
    ),
    "public weights + teacher": (),
}
"""What differs from `photos_taught`. The teacher of the last but one is the public weights."""
WARMUP = 0.1
"""Share of the time in which the learning rate rises."""
TIMED_CROPS = 64
KINDS = ("knn", "linear")
"""Accuracies. A linear probe of many classes takes minutes."""


def main() -> None:
    """Train and evaluate what is missing, and print the table and a line of JSON for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--set", nargs="+", default=[])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    options = parser.parse_args()
    print_machine()
    print(f"weights_and_teacher: {options.seconds:g} s of one core each; {' '.join(options.set)}")
    place = (f"data.root={options.images}", f"pretrain.teacher.onnx={options.teacher}")
    results: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for name in options.only:
            trained = "pretrain.epochs=0" not in RECIPES[name]
            if seed and not trained:
                continue  # the same for every seed
            folder = options.folder / f"{name.replace(' ', '_')}_{seed}"
            if not (folder / "result.json").exists():
                own = (*SHARED, *place, *options.set, *RECIPES[name])
                overrides = (*own, f"seed={seed}", f"output_dir={folder}")
                run = Run("photos_taught", *overrides, report=tell)
                found = trial(run, options.seconds if trained else 0, options.kinds)
                (folder / "result.json").write_text(json.dumps(found))
            found = json.loads((folder / "result.json").read_text())
            results.setdefault(name, []).append(found)
            print(json.dumps({"recipe": name, "seed": seed, **found}), flush=True)
    report(results, options.kinds)


def trial(run: Run, seconds: float, kinds: Sequence[str]) -> dict[str, Any]:
    """Train for some processor time, and evaluate."""
    settings, folder, seed = run.config.pretrain, run.files.output_dir, run.config.seed
    folder.mkdir(parents=True, exist_ok=True)
    if settings.teacher is not None and not (folder / "teacher").exists():
        shared = folder.parent / ("teacher_init" if settings.teacher.init else "teacher_onnx")
        shared.mkdir(exist_ok=True)
        (folder / "teacher").symlink_to(shared.resolve())
    pool = run.open_images()
    trainer = make_trainer(settings, seed, run.space, pool, run.files.supernet, {}, silent)
    teaching, teacher_s = trainer.teaching, 0.0
    if teaching is not None:
        began = time.process_time()
        teaching.embed(range(TIMED_CROPS))
        teacher_s = (time.process_time() - began) / TIMED_CROPS * teaching.cache.rows
        teaching.fill(lambda: None)
    began = time.process_time()
    steps, losses = train(trainer, seconds) if seconds else (0, [])
    return {
        "teacher_s": round(teacher_s),
        "training_s": round(time.process_time() - began),
        "steps": steps,
        "losses": losses,
        **accuracies(run, trainer.weights(), kinds),
    }


def train(trainer: Trainer, seconds: float) -> tuple[int, list[float]]:
    """Number of steps, and losses of largest, smallest and random subnet in the last ones.

    The learning rate depends on the share of the processor time that has been used: linear warm-up,
    then cosine decay to 0.
    """
    settings, method = trainer.settings, trainer.method.train()
    step, passes = choose_step(method, settings), Passes(method, settings.batch_size)
    began, steps, last = time.process_time(), 0, deque[list[float]](maxlen=8)
    if trainer.begins_head:
        trainer.begin_head()
    for epoch in itertools.count():
        for views in trainer.loader.batches(epoch, 0):
            share = (time.process_time() - began) / seconds
            if share >= 1:
                return steps, [round(statistics.fmean(each), 4) for each in zip(*last, strict=True)]
            rate = min(1.0, (share + 0.01) / WARMUP) * 0.5 * (1 + math.cos(math.pi * share))
            for group in trainer.optimizer.param_groups:
                group["lr"] = settings.lr * rate
            passes.step = steps
            subnets = sandwich_architectures(method.space, settings.random_subnets, 0, steps)
            given = tuple(
                view.contiguous(memory_format=torch.channels_last) if view.ndim == 4 else view
                for view in views
            )
            last.append(
                step(method, given, subnets, trainer.optimizer, share, passes=passes).losses
            )
            steps += 1
            trainer.progress.step = steps  # `weights` asks whether there were any
    raise AssertionError


def named_subnets(space: SearchSpace) -> dict[str, Architecture]:
    """The smallest, three random ones, and the largest."""
    rng = random.Random(0)
    drawn = sorted((space.sample(rng) for _ in range(3)), key=space.macs)
    return {
        "smallest": space.smallest,
        **{f"random {number}": subnet for number, subnet in enumerate(drawn, 1)},
        "largest": space.largest,
    }


def accuracies(run: Run, weights: SupernetWeights, kinds: Sequence[str]) -> dict[str, Any]:
    """Accuracies of each subnet, and the number of test images."""
    pool = run.open_images()
    comparison = Comparison(weights, make_judge(run, pool))
    found: dict[str, Any] = {}
    for name, subnet in named_subnets(run.space).items():
        features = comparison.features(Subject(name, subnet))
        found[name] = {kind: getattr(comparison.judge, kind)(features) for kind in kinds}
        found["test_images"] = len(features.test_labels)
    return found


def report(results: dict[str, list[dict[str, Any]]], kinds: Sequence[str]) -> None:
    """Print a table for each kind of accuracy."""
    subnets = [name for name in next(iter(results.values()))[0] if name.split()[0] in NAMED]
    for kind in kinds:
        print(f"  {kind:40}" + "".join(f"{name:>16}" for name in subnets))
        for recipe, found in results.items():
            cells = [cell([one[name][kind] for one in found], found[0]) for name in subnets]
            print(f"  {recipe:40}" + "".join(f"{text:>16}" for text in cells))
    for recipe, found in results.items():
        spent = "; ".join(
            "{steps} steps in {training_s} s".format(**one)
            + (" and {teacher_s} s of the teacher".format(**one) if one["teacher_s"] else "")
            for one in found
        )
        print(f"  {recipe:40} {spent}")


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
