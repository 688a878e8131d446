"""Trainings in bf16 against the same in fp32: kNN accuracies; and scores in bf16 of one supernet.

Two families and two methods on scikit-learn's digits, each training with several seeds in both
precisions, by the stage `pretrain` itself. Then the agreement of random subnets of a supernet that
was trained in fp32 is computed in both: whether their order stays.

Where the processor has no instructions for bf16, convolutions are computed as such instructions
compute them: operands rounded to bf16, products summed in fp32, results rounded. This is compared
with torch's own, slow bf16 convolution first.

Usage: python benchmarks/bf16.py OUTPUT_DIR [SEEDS] [KEY=VALUE ...]
(3 seeds by default). Started again, it goes on where it was stopped. Times are not compared: see
channels_last.py and gpu.py.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import print_machine
from scipy.stats import kendalltau

from devices.machine import instruction_sets
from edgesearch import Run
from edgesearch.events import Event
from edgesearch.pretrain.computation import computes_bf16
from edgesearch.search.agreement import make_agreement
from edgesearch.training.precision import autocast

CPU = torch.device("cpu")
HAS_BF16 = computes_bf16(CPU, instruction_sets(Path("/")))
FAMILIES = {
    "resnet": ("space.name=resnet_tiny", "space.in_channels=1"),
    "mobile": (
        *("space.name=mobile_small", "space.in_channels=1", "space.resolutions=[24]"),
        "space.stage_strides=[1, 1, 2, 2, 1, 1]",
    ),
}
METHODS = {
    "moco_v2": ("pretrain.queue_size=256", "pretrain.ema_momentum=0.99"),
    "simclr": ("pretrain.queue_size=", "pretrain.ema_momentum="),
}
SHARED = (
    *("pretrain.epochs=10", "pretrain.warmup_epochs=1", "pretrain.knn_every_epochs=10"),
    *("pretrain.optimizer=sgd", "pretrain.threads=1", "pretrain.tensorboard=false"),
    "pretrain.memory_format=channels_last",
)
ENDS = ("knn_largest", "knn_smallest")
SUBNETS = 24
own_conv2d = F.conv2d


class RoundedConv2d(torch.autograd.Function):
    """A convolution as instructions for bf16 compute it."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: Any, padding: Any, groups: int
    ) -> torch.Tensor:
        """Round the operands, sum in fp32, round the result."""
        ctx.types = x.dtype, weight.dtype
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.form = stride, padding, groups
        return torch.conv2d(x.float(), weight.float(), None, stride, padding, 1, groups).bfloat16()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        """The same of both gradients."""
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.form
        found = torch.ops.aten.convolution_backward(
            *(gradient.bfloat16().float(), x.float(), weight.float(), None, stride, padding),
            *([1, 1], False, [0, 0], groups, [*ctx.needs_input_grad[:2], False]),
        )[:2]
        rounded = [None if each is None else each.bfloat16() for each in found]
        to_types = zip(rounded, ctx.types, strict=True)
        return (
            *(None if each is None else each.to(kind) for each, kind in to_types),
            None,
            None,
            None,
        )


def rounded_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """`F.conv2d`, rounded under autocast."""
    if not torch.is_autocast_enabled("cpu"):
        return own_conv2d(x, weight, bias, stride, padding, dilation, groups)
    pairs = [[each] * 2 if isinstance(each, int) else [*each] for each in (stride, padding)]
    with torch.autocast("cpu", enabled=False):
        return RoundedConv2d.apply(x, weight, *pairs, groups)


@contextmanager
def instructions_for_bf16() -> Any:
    """Those of the processor, or what stands for them."""
    if HAS_BF16:
        yield
        return
    F.conv2d = rounded_conv2d
    try:
        yield
    finally:
        F.conv2d = own_conv2d


def compare_with_torch() -> None:
    """Print the largest difference to torch's own bf16 convolution, in units of its last bit."""
    torch.manual_seed(0)
    worst = 0.0
    for groups in (1, 16):
        x = torch.randn(2, 16, 8, 8)
        weight = torch.randn(16, 16 // groups, 3, 3)
        found = []
        for conv2d in (own_conv2d, rounded_conv2d):
            a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
            with autocast(CPU, "bf16"):
                out = conv2d(a, b, None, 1, 1, 1, groups)
            out.float().square().sum().backward()
            found.append([out.detach().float(), a.grad, b.grad])
        for theirs, ours in zip(*found, strict=True):
            difference = (theirs - ours).abs().max() / theirs.abs().max()
            worst = max(worst, float(difference) * 256)
    print(
        "bf16: no instructions for it here: convolutions are computed in fp32 from rounded "
        f"operands; greatest difference to torch's own {worst:.2f} × 2^-8 of the largest value"
    )
    if worst > 2:
        sys.exit("that is not the same")


def trained(folder: Path, family: str, method: str, seed: int, precision: str, given: Any) -> Run:
    """A finished training."""
    own = (*FAMILIES[family], f"pretrain.method={method}", *METHODS[method], *SHARED, *given)
    place = f"output_dir={folder / f'{family}-{method}-{seed}-{precision}'}"
    run = Run(
        "quickstart", *own, f"pretrain.precision={precision}", f"seed={seed}", place, report=tell
    )
    with instructions_for_bf16():
        run.pretrain()
    return run


def knn(run: Run) -> dict[str, float]:
    """kNN accuracies of both ends after the last epoch."""
    lines = (run.files.supernet / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads(lines[-1])["monitor"]


def compare_scores(run: Run, name: str) -> None:
    """Print how far scores in bf16 are from those in fp32, and whether their order is the same."""
    pool, weights, rng = run.open_images(), run.load_weights(), random.Random(0)
    subnets = list(dict.fromkeys(run.space.sample(rng) for _ in range(SUBNETS)))
    scores: dict[str, list[float]] = {}
    for precision in ("fp32", "bf16"):
        agreement = make_agreement(weights, pool, run.config.search)
        with instructions_for_bf16(), autocast(CPU, precision):
            scores[precision] = [agreement(subnet) for subnet in subnets]
    tau = kendalltau(scores["fp32"], scores["bf16"]).statistic
    difference = max(abs(a - b) for a, b in zip(*scores.values(), strict=True))
    same = sorted(range(len(subnets)), key=scores["fp32"].__getitem__) == sorted(
        range(len(subnets)), key=scores["bf16"].__getitem__
    )
    print(
        f"  {name}: agreement of {len(subnets)} subnets in bf16: Kendall tau {tau:.3f} with fp32, "
        f"{'the same order' if same else 'another order'}, largest difference {difference:.4f}"
    )


def main() -> None:
    """Train what is missing, and print the accuracies and the comparison of scores."""
    folder, *rest = sys.argv[1:]
    given = [text for text in rest if "=" in text]
    seeds = range(int(next((text for text in rest if "=" not in text), "3")))
    print_machine()
    if not HAS_BF16:
        compare_with_torch()
    print(f"bf16: digits, {' '.join([*SHARED, *given])}; seeds {[*seeds]}")
    for family in FAMILIES:
        for method in METHODS:
            found: dict[str, list[dict[str, float]]] = {"fp32": [], "bf16": []}
            for seed in seeds:
                for precision, values in found.items():
                    run = trained(Path(folder), family, method, seed, precision, given)
                    values.append(knn(run))
            for end in ENDS:
                fp32, bf16 = ([each[end] for each in values] for values in found.values())
                differences = [b - a for a, b in zip(fp32, bf16, strict=True)]
                error = statistics.stdev(differences) / len(differences) ** 0.5
                shown = ["/".join(f"{each:.1%}" for each in values) for values in (fp32, bf16)]
                print(
                    f"  {family} {method} {end}: fp32 {shown[0]}, bf16 {shown[1]}; bf16 - fp32 "
                    f"{statistics.mean(differences):+.2%} ± {error:.2%}; deviation over seeds in "
                    f"fp32 {statistics.stdev(fp32):.2%}",
                    flush=True,
                )
            compare_scores(trained(Path(folder), family, method, 0, "fp32", given), method)


def tell(event: Event) -> None:
    """Show how far it is, away from the results."""
    print(event, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
