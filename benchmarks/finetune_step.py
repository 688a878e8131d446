"""Steps of fine-tuning: channels last against first, and for detection crops drawn at once.

Samples of real images are changed as in training, by edgesearch's crop and by torchvision's
`RandomIoUCrop` in its place; then both ends of the space make steps in both memory formats, in
turn. Processor time counts, on one thread.

Usage: python benchmarks/finetune_step.py CONFIG [KEY=VALUE ...]
(a configuration with a task, such as detect data.root=PATH; the first sixteen images are used)
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import print_machine
from torchvision.transforms import v2

import edgesearch
from edgesearch.stages.finetune import open_finetuning
from edgesearch.tasks import detection
from edgesearch.tasks.box_crop import BoxCrop

IMAGES, SAMPLE_ROUNDS, STEP_ROUNDS = 16, 20, 10
CROPS = {"torchvision's crops": v2.RandomIoUCrop, "crops drawn at once": BoxCrop}
FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def main() -> None:
    """Print times and ratios."""
    config, *overrides = sys.argv[1:]
    torch.set_num_threads(1)
    run = edgesearch.Run(config, "finetune.weights=random", *overrides)
    finetuning = open_finetuning(run, weights=False)
    print_machine()
    print(f"finetune_step: {config} {' '.join(overrides)}, {IMAGES} images a step")
    images, task = finetuning.images.train, finetuning.task(run.space.largest.resolution)
    pairs = [(images.load(n), images.target(n)) for n in range(IMAGES)]
    samples: list[tuple[torch.Tensor, Any]] = []

    def change(epoch: int) -> None:
        samples[:] = [task.changed(*pair, n, epoch) for n, pair in enumerate(pairs)]

    if finetuning.settings.task == "detection":

        def with_crop(name: str) -> Callable[[int], None]:
            def work(epoch: int) -> None:
                vars(detection)["BoxCrop"] = CROPS[name]
                change(epoch)

            return work

        compare("samples", {name: with_crop(name) for name in CROPS}, SAMPLE_ROUNDS)
    change(0)
    pixels = task.preprocess.normalise(torch.stack([image for image, _ in samples]))
    targets = task.collate([target for _, target in samples], torch.device("cpu"))
    for name in ("smallest", "largest"):
        model = finetuning.subnet(getattr(run.space, name)).train()

        def step_in(order: torch.memory_format, model: Any = model) -> Callable[[int], None]:
            def step(_: int) -> None:
                model.zero_grad(set_to_none=True)
                model.head.loss(model.raw(pixels), targets).backward()

            def work(number: int) -> None:
                model.to(memory_format=order)
                step(number)

            return work

        compare(name, {key: step_in(order) for key, order in FORMATS.items()}, STEP_ROUNDS)


def compare(what: str, works: dict[str, Callable[[int], None]], rounds: int) -> None:
    """Time two works in turn, and print their medians and the median ratio."""
    times_s: list[dict[str, float]] = []
    for number in range(1 + rounds):
        found = {}
        for name, work in works.items():
            start = time.process_time()
            work(number)
            found[name] = time.process_time() - start
        times_s.append(found)
    first, last = works
    middles = ", ".join(
        f"{name} {statistics.median(each[name] for each in times_s[1:]) * 1e3:.0f} ms"
        for name in works
    )
    ratio = statistics.median(each[first] / each[last] for each in times_s[1:])
    print(f"  {what}: {middles}, ratio {ratio:.2f} (median of {rounds})", flush=True)


if __name__ == "__main__":
    main()
