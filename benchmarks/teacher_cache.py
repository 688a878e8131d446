"""What keeping a teacher's embeddings costs, while they are written and when they are read.

Writing: crops a second of the teacher in its runtime, where they lie ready, against those of the
whole (reading images, cropping, the teacher, writing), in turn after each batch. Target: 0.9.
Reading: a batch's embeddings against a step of the training. Target: at most 3 %. All in processor
time of one thread.

Usage: python benchmarks/teacher_cache.py IMAGES TEACHER.onnx [KEY=VALUE ...] (of the configuration
photos_taught, such as pretrain.teacher.size=128)
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from machine import print_machine

from edgesearch import Run
from edgesearch.events import silent
from edgesearch.pretrain.faithful import choose_step
from edgesearch.pretrain.make_trainer import make_trainer
from edgesearch.pretrain.sandwich import sandwich_architectures
from edgesearch.pretrain.taught_views import TEACHER_BATCH
from edgesearch.pretrain.trainer import Trainer
from edgesearch.teacher.teacher_cache import TeacherCache

BATCHES, STEPS = 6, 3


def main() -> None:
    """Print both ratios."""
    images, teacher, *given = sys.argv[1:]
    print_machine()
    print(f"teacher_cache: {' '.join(given)}")
    with tempfile.TemporaryDirectory() as folder:
        place = (f"data.root={images}", f"pretrain.teacher.onnx={teacher}", f"output_dir={folder}")
        own = ("pretrain.threads=1", "pretrain.workers=0", *given)
        run = Run("photos_taught", *place, *own)
        trainer = make_trainer(
            run.config.pretrain, 0, run.space, run.open_images(), run.files.supernet, {}, silent
        )
        writing(trainer, Path(folder), teacher)
        reading(run, trainer)


def writing(trainer: Trainer, folder: Path, teacher: str) -> None:
    """The teacher alone against all that fills the cache."""
    teaching = trainer.teaching
    assert teaching is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(teacher, options, ["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    size = teaching.teacher.size
    shape = (size, size, 3) if given.shape[3] == 3 else (3, size, size)
    kind = np.uint8 if "uint8" in given.type else np.float32
    crops = np.random.default_rng(0).integers(0, 255, (TEACHER_BATCH, *shape)).astype(kind)
    alone, whole = [], []
    began = 0.0

    def after(done: int) -> None:
        nonlocal began
        whole.append(time.process_time() - began)
        began = time.process_time()
        session.run(None, {given.name: crops})
        alone.append(time.process_time() - began)
        began = time.process_time()

    rows = TEACHER_BATCH * (1 + BATCHES)
    cache = TeacherCache(folder / "kept", {}, rows, teaching.cache.dim)
    began = time.process_time()
    cache.fill(teaching.embed, TEACHER_BATCH, after)
    each = [statistics.median(times[1:]) / TEACHER_BATCH for times in (alone, whole)]
    ratios = [one / all_ for one, all_ in zip(alone[1:], whole[1:], strict=True)]
    print(
        f"  writing: {1 / each[1]:.1f} crops of {size} px a second, the teacher alone "
        f"{1 / each[0]:.1f}: {statistics.median(ratios):.3f} of its speed (median of {BATCHES} "
        f"batches, {min(ratios):.3f} to {max(ratios):.3f}; target 0.9)"
    )


def reading(run: Run, trainer: Trainer) -> None:
    """A batch's embeddings against a step."""
    settings, teaching, method = run.config.pretrain, trainer.teaching, trainer.method.train()
    assert teaching is not None
    cache, batch = teaching.cache, settings.batch_size
    about = {"random": True}
    folder = run.files.output_dir / "random"
    random = TeacherCache(folder, about, cache.rows, cache.dim)
    random.fill(lambda rows: torch.randn(len(rows), cache.dim), 4096)
    rng, took = np.random.default_rng(0), []
    for _ in range(20):
        rows = rng.integers(0, cache.rows, batch)
        began = time.process_time()
        found = torch.stack([random[int(row)] for row in rows])  # one by one, as workers read them
        took.append(time.process_time() - began)
    side, steps = run.space.largest.resolution, []
    views = torch.randn(batch, 3, side, side).contiguous(memory_format=torch.channels_last), found
    step = choose_step(method, settings)
    for number in range(1 + STEPS):
        subnets = sandwich_architectures(run.space, settings.random_subnets, 0, number)
        began = time.process_time()
        step(method, views, subnets, trainer.optimizer)
        steps.append(time.process_time() - began)
    read_s, step_s = statistics.median(took), statistics.median(steps[1:])
    print(
        f"  reading: {1e3 * read_s:.2f} ms for a batch of {batch}, a step {1e3 * step_s:.0f} ms: "
        f"{read_s / step_s:.3%} (target 3 %)"
    )


if __name__ == "__main__":
    main()
