"""What eight bits cost a trained supernet's winners, and how much faster they are.

The stages up to the search are run unless they are finished. Each winner, and the smallest and the
largest network, is exported in single precision and in eight bits as `edgesearch export` does it.
For each: kNN accuracy of both files on all labeled images, and the ratio of their latencies,
measured in turn on one thread.

Usage: python benchmarks/eight_bits.py CONFIG [OVERRIDE …]
The configuration has to name labeled images. Run nothing else meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from machine import print_machine

from devices import OnnxRuntime, Session, load_device, take_fingerprint
from edgesearch.api import Run
from edgesearch.config import Config, load_config
from edgesearch.data.image_pool import ImagePool
from edgesearch.export.deployable import make_deployable, write_in_format
from edgesearch.export.engines import ONNX_FILE
from edgesearch.export.verify import KnnImages
from edgesearch.formats.onnx_export import export_network
from edgesearch.search.winners import Winners
from edgesearch.space import Architecture

MOST_LOSS, TARGET_SPEEDUP = 0.01, 1.6


class EightBits(NamedTuple):
    """kNN accuracies (0 … 1) on `images` held-out images, and fp32 latency over int8 latency."""

    before: float
    after: float
    images: int
    speedup: float
    low: float
    high: float
    latency_ms: float


def main() -> None:
    """Print a line for each network."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    run = Run(load_config(sys.argv[1], sys.argv[2:]))
    run.profile()
    run.pretrain()
    run.search()
    print_machine()
    print(f"eight_bits: {' '.join(sys.argv[1:])}")
    winners = Winners.load(run.files.search.chosen, run.space).winners
    networks = {winner.name: winner.architecture for winner in winners}
    networks |= {"smallest": run.space.smallest, "largest": run.space.largest}
    pool, losses = run.open_images(), []
    for name, architecture in networks.items():
        with written(run, pool, architecture) as single:
            found = in_eight_bits(single, pool, architecture.resolution, run.config)
        losses.append(found.before - found.after)
        print(
            f"  {name:8} {run.space.macs(architecture) / 1e6:6.1f} M MACs: kNN {found.before:.1%} "
            f"in single precision, {found.after:.1%} in eight bits (loss {losses[-1]:+.1%}); "
            f"{found.latency_ms:.3f} ms, {found.speedup:.2f} times as fast as single precision "
            f"({found.low:.2f} to {found.high:.2f}); {architecture}",
            flush=True,
        )
    print(
        f"  largest loss of a winner {max(losses[:-2]):+.1%}, of all {max(losses):+.1%} (target at "
        f"most {MOST_LOSS:.0%}), on {found.images:,} images"
    )


@contextlib.contextmanager
def written(run: Run, pool: ImagePool, architecture: Architecture) -> Iterator[Path]:
    """The file of a network in single precision, in a folder of its own."""
    search = run.config.search
    deployable = make_deployable(
        run.space,
        run.load_weights(),
        pool,
        architecture,
        "features",
        calibration_images=search.calibration_images,
        batch_size=search.batch_size,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ONNX_FILE
        shape = (1, run.space.in_channels, *[architecture.resolution] * 2)
        export_network(
            deployable.network,
            path,
            input_shape=shape,
            output_names=deployable.output_names,
            metadata=deployable.metadata,
        )
        yield path


def in_eight_bits(
    single: Path, pool: ImagePool, resolution: int, config: Config, count: int = 20_000
) -> EightBits:
    """Quantize a file, beside which the result is written, and compare both.

    At most `count` training and as many held-out images give the accuracies.
    """
    runtime = OnnxRuntime(threads=os.cpu_count() or 1)
    fingerprint = take_fingerprint(runtime.name, runtime.version)
    device = load_device("local-cpu", precision="int8")
    form = device.number_format(fingerprint.machine, fingerprint.instruction_sets)
    calibration = pool.sample(resolution, 0, config.search.calibration_images)
    eight = write_in_format(single.parent, form, calibration, 1, config.export.quantization)
    images = pool.labelled(resolution, count, count)
    knn = KnnImages(
        images.train, images.train_labels, images.test, images.test_labels, images.prepare
    )
    before, after = (accuracy(knn, runtime.load(path)) for path in (single, eight))
    return EightBits(before, after, len(knn.test), *speed(eight, single))


def accuracy(knn: KnnImages, session: Session) -> float:
    """kNN accuracy of what a session gives."""

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        return list(session.run({"images": pixels}).values())

    found = knn.accuracy(run, 1)
    session.close()
    return found


def speed(path: Path, against: Path) -> tuple[float, float, float, float]:
    """How much faster a file is than another: ratio, its interval, and its own latency in ms."""
    command = [sys.executable, "-m", "edgesearch", "bench", str(path), "--against", str(against)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found = json.loads(done.stdout)
    low, high = found["ratio"]["interval"]
    latency_ms = found["engines"][0]["timing"]["p50_ms"]
    return 1 / found["ratio"]["ratio"], 1 / high, 1 / low, latency_ms


if __name__ == "__main__":
    main()
