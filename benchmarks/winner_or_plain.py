"""A winner against what one would do without this project: smaller images for a public network.

For each winner of a finished search, EfficientNet-Lite0 and MobileNetV2 with public weights at the
resolutions next to it in latency: the highest that is at most as slow, and the lowest that is
slower. Latencies are medians on onnxruntime, one thread, measured in turn; all networks are
exported alike. Accuracies are those of held-out images by kNN (k = 20) and by a linear probe on
the features, with 95 % intervals of the difference to the winner (both errors binomial and
independent). Public networks keep their own statistics and normalisation.

Usage: python benchmarks/winner_or_plain.py latency|accuracy FOLDER CONFIG [OVERRIDE ...] (CONFIG:
of a run with winners.json). `latency` first, with nothing else to do on the machine; it keeps its
figures in FOLDER.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from machine import print_machine

from devices import OnnxRuntime
from edgesearch import Run
from edgesearch.formats.onnx_export import export_network
from edgesearch.search.winners import Winners
from edgesearch.stages.evaluate import make_judge
from edgesearch.supernet.public_weights import read_public_weights
from edgesearch.supernet.weight_packages import packaged_file

PLAIN = ("efficientnet-lite0", "mobilenet_v2")
RESOLUTIONS = range(32, 129, 8)
ROUNDS, RUNS = 40, 5


def main() -> None:
    """Measure, or compare what was measured."""
    step, folder, config, *overrides = sys.argv[1:]
    overrides = [*overrides, "evaluation.knn_k=20"]
    Path(folder).mkdir(parents=True, exist_ok=True)
    if step == "latency":
        measure(Run(config, *overrides), Path(folder))
    else:
        compare(Run(config, *overrides), config, overrides, Path(folder))


def measure(run: Run, folder: Path) -> None:
    """Write latencies.json: the median latency of each network, in ms."""
    paths = {}
    weights = run.load_weights()
    for name, architecture in Winners.load(run.files.winners, run.space).architectures.items():
        network = weights.subnet(architecture)
        paths[name] = exported(network, architecture.resolution, folder / f"{name}.onnx")
    for plain in PLAIN:
        network = read_public_weights(packaged_file(plain)).network()
        for side in RESOLUTIONS:
            name = f"{plain} {side}"
            paths[name] = exported(network, side, folder / f"{plain}_{side}.onnx")
    runtime = OnnxRuntime(threads=1)
    sessions = {name: runtime.load(path) for name, path in paths.items()}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            taken[name].append(min(session.time_ms(RUNS)))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    (folder / "latencies.json").write_text(json.dumps(medians, indent=1))
    for name, latency in medians.items():
        print(f"  {name:24} {latency:7.3f} ms")


def exported(network: torch.nn.Module, side: int, path: Path) -> Path:
    """Export a network's features for one image."""
    if not path.exists():
        export_network(network.eval(), path, input_shape=(1, 3, side, side), output_names=["out"])
    return path


def compare(run: Run, config: str, overrides: list[str], folder: Path) -> None:
    """Print accuracies beside latencies."""
    print_machine()
    print(f"winner_or_plain: {' '.join([config, *overrides])}")
    latencies = json.loads((folder / "latencies.json").read_text())
    winners = Winners.load(run.files.winners, run.space).architectures
    judge, weights = make_judge(run, run.open_images()), run.load_weights()
    kept: dict[str, dict[str, float]] = {}
    print(f"  {'':24} {'ms':>7} {'kNN':>6} {'linear':>7}   winner ahead in kNN, linear (points)")
    for name, architecture in winners.items():
        features = judge.features(weights.subnet(architecture), architecture.resolution)
        own = {"knn": judge.knn(features), "linear": judge.linear(features)}
        count, limit = len(features.test_labels), latencies[name]
        print(f"  {name:24} {limit:7.3f} {own['knn']:6.1%} {own['linear']:7.1%}   {architecture}")
        for plain in PLAIN:
            for side in around(plain, limit, latencies):
                at = f"{plain} {side}"
                if at not in kept:
                    kept[at] = of_plain(config, overrides, plain, side)
                other = kept[at]
                ahead = ", ".join(difference(own[kind], other[kind], count) for kind in own)
                print(
                    f"  {at:24} {latencies[at]:7.3f} {other['knn']:6.1%} {other['linear']:7.1%}   "
                    f"{ahead}",
                    flush=True,
                )


def around(plain: str, limit: float, latencies: dict[str, float]) -> list[int]:
    """The highest resolution within a latency, and the lowest above it."""
    within = [side for side in RESOLUTIONS if latencies[f"{plain} {side}"] <= limit]
    above = [side for side in RESOLUTIONS if latencies[f"{plain} {side}"] > limit]
    return [*within[-1:], *above[:1]]


def of_plain(config: str, overrides: list[str], plain: str, side: int) -> dict[str, float]:
    """Accuracies of a public network at a resolution."""
    run = Run(config, *overrides, f"pretrain.init={plain}")  # for its normalisation
    judge: Any = make_judge(run, run.open_images())
    network = read_public_weights(packaged_file(plain)).network()
    features = judge.features_of_calibrated(network.to(memory_format=torch.channels_last), side)
    return {"knn": judge.knn(features), "linear": judge.linear(features)}


def difference(own: float, other: float, count: int) -> str:
    """Points by which the first is ahead, with its 95 % interval."""
    half = 1.96 * math.sqrt((own * (1 - own) + other * (1 - other)) / count)
    return f"{100 * (own - other):+.1f} ± {100 * half:.1f}"


if __name__ == "__main__":
    main()
