"""What the engines of a winner cost to make, and how fast they are.

The winner is searched for the median latency of torchvision's ResNet-50 (without its classifier,
which the winner has none of either) on the same runtime, precision and resolution. Its weights are
random, and so are torchvision's: that changes no latency, and makes the kNN accuracies those of
random features. Then, each beside its target:

- seconds and peak memory of a process that exports it, verifies the files and builds the engine
  of TensorRT for RTX in half precision for four compute capabilities (all that the export does
  with a winner but measuring it);
- its speed in eight bits against single precision, in turn, and the kNN accuracy of both;
- its latency against that of ResNet-50, in turn. The last two are printed by `edgesearch bench`.

Usage: python benchmarks/export_speed.py [--config NAME] [--knn IMAGES] [--folder DIR] [OVERRIDE …]
(resnet50to101_128 with the digits of scikit-learn as its images). With --folder a run that was
stopped goes on. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import print_machine
from score_cost import random_weights

from devices import OnnxRuntime, Session, load_device, take_fingerprint
from edgesearch.api import Run
from edgesearch.config import Config, load_config
from edgesearch.data.image_pool import ImagePool
from edgesearch.export.deployable import make_deployable, write_in_format, write_winner
from edgesearch.export.engines import TensorRTTarget
from edgesearch.export.verify import KnnImages
from edgesearch.formats.onnx_export import export_network
from edgesearch.latency.table import table_digest
from edgesearch.search.winners import Winner, Winners

CAPABILITIES = "[SM75, SM86, SM89, SM120]"
SEARCH = {
    "strategy": "random",
    "evaluations": 8,
    "reserves": 7,
    "images": 64,
    "calibration_images": 64,
    "batch_size": 32,
}
TARGET_S, TARGET_BYTES, TARGET_SPEEDUP = 90, 4e9, 1.6
ONE_WINNER = "--one-winner"


def main() -> None:
    """Print seconds, memory and both ratios."""
    parser = argparse.ArgumentParser(description="What engines cost to make, and their speed.")
    parser.add_argument("--config", default="resnet50to101_128")
    parser.add_argument("--knn", type=int, default=256, help="images of each kind for accuracies")
    parser.add_argument(
        "--folder", help="keeps all files; an empty one that is removed if left out"
    )
    parser.add_argument(ONE_WINNER, action="store_true", help="only make engines: for itself")
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*")
    options = parser.parse_args()
    if options.one_winner:
        make_engines(load_config(options.config, options.overrides))
        return
    print_machine()
    print(f"export_speed: {' '.join([options.config, *options.overrides])}")
    with (
        tempfile.TemporaryDirectory()
        if options.folder is None
        else contextlib.nullcontext(options.folder)
    ) as folder:
        overrides = [
            f"output_dir={folder}/run",
            "data.source=digits",
            f"export.tensorrt.compute_capabilities={CAPABILITIES}",
            *(f"search.{name}={value}" for name, value in SEARCH.items()),
            *options.overrides,
        ]
        resnet50 = Path(folder) / "resnet50.onnx"
        budget_ms = measure_resnet50(options.config, overrides, resnet50)
        overrides.append(f"search.budgets={{latency_ms: {budget_ms}}}")
        for stage in ("profile", "search", "export"):
            call(stage, options.config, *overrides)
        report_cost(options.config, overrides)
        config = load_config(options.config, overrides)
        winner = config.output_dir / "engines/w0/subnet.onnx"
        report_eight_bits(config, winner, Path(folder), options.knn)
        bench(winner, resnet50)


def measure_resnet50(config_name: str, overrides: list[str], path: Path) -> float:
    """Write torchvision's ResNet-50 and the supernet of random weights; its median in ms."""
    from torch import nn
    from torchvision.models import resnet50

    config = load_config(config_name, overrides)
    space = config.space.build()
    files, size = Run(config).files, space.largest.resolution
    known = path.with_suffix(".json")
    if not known.exists():
        files.supernet.mkdir(parents=True, exist_ok=True)
        random_weights(space).save(files.weights)
        network = resnet50(weights=None).eval()
        network.fc = nn.Identity()
        export_network(network, path, input_shape=(1, 3, size, size), output_names=["features"])
        known.write_text(
            json.dumps(call("bench", str(path))["engines"][0]["timing"]["p50_ms"]), encoding="utf-8"
        )
    median_ms: float = json.loads(known.read_text("utf-8"))
    print(f"  ResNet-50 at {size} px: {median_ms:.2f} ms")
    return median_ms


def call(*arguments: str) -> dict[str, Any]:
    """The result of a command, whose time is printed."""
    command = [sys.executable, "-m", "edgesearch", *arguments, "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    print(f"  edgesearch {arguments[0]}: {time.perf_counter() - start:.1f} s", flush=True)
    if done.returncode:
        raise SystemExit(f"it ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def report_cost(config_name: str, overrides: list[str]) -> None:
    """Print what making all engines of the winner takes."""
    command = [sys.executable, __file__, ONE_WINNER, "--config", config_name, *overrides]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    duration_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"making the engines ended with {process.returncode}")
    print(
        f"  exported, verified and built in {duration_s:.1f} s (target {TARGET_S} s), peak memory "
        f"{usage.ru_maxrss * 1024 / 1e9:.2f} GB (target {TARGET_BYTES / 1e9:g} GB)"
    )


def make_engines(config: Config) -> None:
    """Make all files of the winner again, in a folder of its own, and print what they are."""
    run = Run(config)
    space, device, engines = run.space, run.device, config.export.tensorrt
    winner, pool, deployable = prepared(config)
    resolution = winner.architecture.resolution
    folder = config.output_dir.parent / "made again"
    export_network(
        deployable.network,
        folder / "subnet.onnx",
        input_shape=(device.batch, space.in_channels, resolution, resolution),
        output_names=deployable.output_names,
        metadata=deployable.metadata,
    )
    write_winner(
        folder,
        deployable,
        pool,
        winner,
        space=space,
        device=device,
        table=run.files.table(device),
        table_digest=table_digest(run.files.table(device)),
        tensorrt=engines
        and TensorRTTarget.of_device(device, engines.compute_capabilities, engines.precision),
        form={"batch": "fixed", "quantization": None},
        calibration=pool.sample(resolution, 0, config.search.calibration_images),
    )
    for name, about in json.loads((folder / "manifest.json").read_text("utf-8"))["files"].items():
        parity = about.get("parity") or {}
        figures = ", ".join(
            f"{figure} {value:.6g}" for figure, value in parity.items() if value is not None
        )
        targets = ", ".join(about.get("compute_capabilities", ()))
        size = f"{about['bytes'] / 1e6:.1f} MB"
        print(f"  {name}: {'; '.join(filter(None, [size, figures, targets]))}", flush=True)


def prepared(config: Config) -> tuple[Winner, ImagePool, Any]:
    """The measured winner, the images, and the winner's network."""
    run = Run(config)
    (winner,) = Winners.load(run.files.measured, run.space).winners
    pool = run.open_images()
    deployable = make_deployable(
        run.space,
        run.load_weights(),
        pool,
        winner.architecture,
        "features",
        calibration_images=config.search.calibration_images,
        batch_size=config.search.batch_size,
    )
    return winner, pool, deployable


def report_eight_bits(config: Config, single: Path, folder: Path, count: int) -> None:
    """Print speed and kNN accuracy of the winner in eight bits beside those in single precision."""
    winner, pool, _ = prepared(config)
    runtime = OnnxRuntime(threads=os.cpu_count() or 1)
    found = take_fingerprint(runtime.name, runtime.version)
    device = load_device("local-cpu", precision="int8")
    form = device.number_format(found.machine, found.instruction_sets)
    resolution = winner.architecture.resolution
    (folder / "int8").mkdir(exist_ok=True)
    shutil.copy(single, folder / "int8")
    calibration = pool.sample(resolution, 0, config.search.calibration_images)
    eight = write_in_format(folder / "int8", form, calibration, 1)
    images = pool.labelled(resolution, count, count)
    knn = KnnImages(
        images.train, images.train_labels, images.test, images.test_labels, images.prepare
    )
    before, after = (accuracy(knn, runtime.load(path)) for path in (single, eight))
    speedup = 1 / bench(eight, single)
    print(
        f"  eight bits ({form}): {speedup:.2f} times as fast as single precision (target "
        f"{TARGET_SPEEDUP}); kNN {before:.1%} before, {after:.1%} after, on {len(knn.test)} images"
    )


def accuracy(knn: KnnImages, session: Session) -> float:
    """kNN accuracy of what a session gives."""

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        return list(session.run({"images": pixels}).values())

    found = knn.accuracy(run, 1)
    session.close()
    return found


def bench(path: Path, against: Path) -> float:
    """The ratio of two latencies, which is printed with its interval."""
    found = call("bench", str(path), "--against", str(against))
    ratio = found["ratio"]
    medians = " and ".join(f"{engine['timing']['p50_ms']:.2f} ms" for engine in found["engines"])
    low, high = ratio["interval"]
    print(
        f"  {path.name} takes {ratio['ratio']:.3f} × the latency of {against.name} "
        f"({low:.3f} to {high:.3f}; {medians})"
    )
    return float(ratio["ratio"])


if __name__ == "__main__":
    main()
