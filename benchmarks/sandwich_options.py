"""What each option of the sandwich trainer does to accuracy and to the time of a step.

Accuracy: the quick start (handwritten digits that come with scikit-learn), trained with each option
and several seeds; kNN of held-out images as in `edgesearch evaluate`, and the mean difference from
the training without any option with the same seeds. Time: steps of all options take turns on the
same images. At equal time: the released order of events beside the training without it for as many
more epochs as its steps take longer. Started again with the same output folder, it goes on where it
was stopped.

Usage: python benchmarks/sandwich_options.py OUTPUT_DIR [ALTERNATIONS]
(100 by default; 0 leaves out the times and what follows from them. For these, run nothing else
meanwhile.)
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from machine import print_machine
from subnets import SUBNETS, knn_judge, named_subnets

from edgesearch import stages as workflow
from edgesearch.cli.stages import pretrain_arguments
from edgesearch.config import Config, load_config
from edgesearch.evaluate.comparison import Subject
from edgesearch.pretrain.faithful import choose_step
from edgesearch.pretrain.method import make_method
from edgesearch.pretrain.sandwich import StepResult, sandwich_architectures

CONFIG = "quickstart"
SHARED = (
    "space.stage_widths=[[8, 16], [16, 32], [32, 64]]",
    "pretrain.epochs=16",
    "pretrain.threads=1",
    "pretrain.knn_every_epochs=0",
)
SEEDS = (0, 1)
OPTIONS = {
    "baseline": (),
    "distill": ("pretrain.distill=1",),
    "largest_only_epochs": ("pretrain.largest_only_epochs=4",),
    "loss_weights": ("pretrain.loss_weights=[1, 0.5, 0.5]",),
    "faithful": ("pretrain.faithful=true",),
    "control": ("pretrain.ema_momentum=0.970299",),
}
"""The control is not an option: a key encoder as fast as in the released order of events, where it
moves three times in a step (0.99 to the power of 3); what else that order does is the difference.
"""


def main() -> None:
    """Print a line for each option."""
    output_dir, *rest = sys.argv[1:]
    alternations = int(rest[0]) if rest else 100
    print_machine()
    print(f"sandwich_options: {CONFIG} {' '.join(SHARED)}, seeds {', '.join(map(str, SEEDS))}")
    configs = {name: load_config(CONFIG, [*SHARED, *own]) for name, own in OPTIONS.items()}
    space = configs["baseline"].space.build()
    for name, subnet in named_subnets(space).items():
        print(f"  {name}: {subnet}, {space.macs(subnet) / 1e6:.1f} M MACs")
    found = {name: [accuracies(name, seed, Path(output_dir)) for seed in SEEDS] for name in OPTIONS}
    print("  kNN, mean of the seeds, and its difference from the baseline (of the single seeds)")
    for name, rows in found.items():
        report_accuracies(" ".join(OPTIONS[name]) or name, rows, found["baseline"])
    if alternations:
        longer = report_times(configs, alternations)["faithful"]
        epochs = round(configs["baseline"].pretrain.epochs * longer)
        rows = [accuracies("baseline", seed, Path(output_dir), epochs) for seed in SEEDS]
        print("  kNN at equal time, and the differences from this baseline")
        report_accuracies(f"baseline, {epochs} epochs", rows, rows)
        report_accuracies(" ".join(OPTIONS["faithful"]), found["faithful"], rows)


def report_accuracies(
    label: str, rows: list[dict[str, float]], baseline: list[dict[str, float]]
) -> None:
    """Print the accuracies of each subnet, of a row for each seed."""
    cells = [cell([r[s] for r in rows], [b[s] for b in baseline]) for s in SUBNETS]
    texts = "  ".join(f"{s} {text}" for s, text in zip(SUBNETS, cells, strict=True))
    print(f"  {label:38}{texts}")


def accuracies(
    name: str, seed: int, output_dir: Path, epochs: int | None = None
) -> dict[str, float]:
    """Train with an option unless that is done, and judge the subnets by name.

    Args:
        name: Of the option.
        seed: Of the training.
        output_dir: Keeps all trainings.
        epochs: If not as many as all others have.
    """
    folder = f"{name}-{seed}" if epochs is None else f"{name}-{epochs}-epochs-{seed}"
    own = [*OPTIONS[name], f"output_dir={output_dir / folder}", f"seed={seed}"]
    own += [] if epochs is None else [f"pretrain.epochs={epochs}"]
    config = load_config(CONFIG, [*SHARED, *own])
    knn = knn_judge(config, workflow.pretrain(**pretrain_arguments(config)).weights_path)
    subnets = named_subnets(config.space.build())
    row = {name: knn(Subject(name, subnet)) for name, subnet in subnets.items()}
    print(f"{name}, seed {seed}: {row}", file=sys.stderr, flush=True)
    return row


def cell(values: Sequence[float], baseline: Sequence[float]) -> str:
    """Mean, mean difference and its range, in per cent and points."""
    differences = [100 * (a - b) for a, b in zip(values, baseline, strict=True)]
    mean = statistics.mean(differences)
    spread = f"{min(differences):+.1f} to {max(differences):+.1f}"
    return f"{statistics.mean(values):.1%} {mean:+.1f} ({spread})"


def report_times(configs: dict[str, Config], alternations: int) -> dict[str, float]:
    """Print the median ratio of each option's step to the baseline's.

    A training with `largest_only_epochs` has steps of two kinds; its ratio is that of their mean.

    Returns:
        The ratios by the option's name.
    """
    torch.set_num_threads(1)
    steps = {name: stepper(config) for name, config in configs.items()}
    times_s: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(2 + alternations):
        for name, step in steps.items():
            start = time.perf_counter()
            step(number)
            times_s[name].append(time.perf_counter() - start)
    times_s = {name: times[2:] for name, times in times_s.items()}
    print(f"  time of a step, median of {alternations}, in turns, on 1 thread")
    ratios = {}
    for name, config in configs.items():
        alone = config.pretrain.largest_only_epochs / config.pretrain.epochs
        ratio = statistics.median(
            a / b for a, b in zip(times_s[name], times_s["baseline"], strict=True)
        )
        ratio = alone * ratio + 1 - alone if alone else ratio
        median_ms = 1e3 * statistics.median(times_s[name])
        kind = " alone; mean step of the training" if alone else ""
        label = " ".join(OPTIONS[name]) or name
        print(f"  {label:38}{median_ms:7.1f} ms{kind}, ratio {ratio:.3f}")
        ratios[name] = ratio
    return ratios


def stepper(config: Config) -> Callable[[int], StepResult]:
    """A step of a fresh method with the option of a configuration, given its number."""
    section, space = config.pretrain, config.space.build()
    method = make_method(section.method, space, **section.method_options())
    method.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD([w for w in method.parameters() if w.requires_grad], 1e-3)
    shape = (section.batch_size, space.in_channels, *[space.largest.resolution] * 2)
    first, second = (
        torch.randn(shape).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )
    take = choose_step(method, section)

    def step(number: int) -> StepResult:
        architectures = sandwich_architectures(space, section.random_subnets, 0, number)
        if section.largest_only_epochs:
            architectures = architectures[:1]
        return take(method, (first, second), architectures, optimizer)

    return step


if __name__ == "__main__":
    main()
