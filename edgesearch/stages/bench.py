"""Command bench: times one engine, or two alternately, on a device."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from devices import DeviceSpec, Fingerprint, fix_batch, read_inputs
from devices.errors import EngineError
from devices.runtimes.known_runtimes import RUNTIMES
from edgesearch.errors import Interrupted, StageError
from edgesearch.events import Event, Report, silent
from edgesearch.export.manifest import check_listed, check_runtime
from profilers import (
    MeasureConfig,
    Ratio,
    Steadiness,
    Timing,
    Usage,
    bench_engines,
    open_meter,
    usage_of,
)


@dataclass(frozen=True)
class BenchedEngine:
    """Figures of one engine."""

    path: Path
    batch: int
    timing: Timing
    images_per_second: float
    usage: Usage


@dataclass(frozen=True)
class BenchResult:
    """Result of `bench`.

    Attributes:
        ratio: Latency of the first engine divided by that of the second; None for a single engine.
    """

    device: str
    fingerprint: Fingerprint
    engines: tuple[BenchedEngine, ...]
    ratio: Ratio | None
    steadiness: Steadiness


def bench(
    path: Path,
    *,
    device: DeviceSpec,
    against: Path | None = None,
    batch: int | None = None,
    rounds: int,
    report: Report = silent,
) -> BenchResult:
    """Time an engine on a device, alone or alternating with another one.

    If a manifest lies beside a file, the file must match it, and a compiled file runs only with the
    runtime version that the manifest names.

    Args:
        path: An `.onnx`, `.ort` or `.engine` file.
        device: The device and its runtime.
        against: Another engine, measured in the same rounds.
        batch: Batch size, for a file with a dynamic batch; the device's if None.
        rounds: Undisturbed rounds to measure.
        report: Called with each event.
    """
    device = device if batch is None else replace(device, batch=batch)
    paths = [path] if against is None else [path, against]
    manifests = [_check(each, device) for each in paths]
    batches = [_batch(*each, device, batch) for each in zip(paths, manifests, strict=True)]
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(open_meter(device)) as meter:
        fingerprint = meter.fingerprints[0]
        for each, manifest in zip(paths, manifests, strict=True):
            if manifest is not None:
                check_runtime(each, manifest, device.runtime, fingerprint.runtime_version)
        files = [_fixed(each, device, Path(folder) / f"{n}.onnx") for n, each in enumerate(paths)]
        try:
            timings, ratio, steadiness = bench_engines(
                device,
                meter,
                files,
                MeasureConfig(rounds=rounds, interval=0.01),
                lambda done, total: report(Event("bench", "rounds measured", done, total)),
            )
            usages = [usage_of(device, each) for each in files]
        except KeyboardInterrupt:
            raise Interrupted("bench stopped; nothing is kept") from None
    engines = tuple(
        BenchedEngine(each, size, timing, 1e3 * size / timing.p50_ms, usage)
        for each, size, timing, usage in zip(paths, batches, timings, usages, strict=True)
    )
    return BenchResult(device.name, fingerprint, engines, ratio, steadiness)


def _check(path: Path, device: DeviceSpec) -> dict[str, Any] | None:
    """Refuse a file that cannot be timed, before contacting the device; return its manifest."""
    endings = sorted({ending for record in RUNTIMES.values() for ending in record.endings})
    if path.suffix not in endings:
        raise StageError(
            f"a file that ends in {', '.join(endings)}",
            str(path),
            "Name an engine that `edgesearch export` wrote, or export the model to ONNX.",
        )
    if not path.is_file():
        raise StageError(f"an engine at {path}", "no such file", "Correct the path.")
    fitting = [name for name, record in RUNTIMES.items() if record.loads(path)]
    if device.runtime not in fitting:
        raise StageError(
            f"a device with the runtime {' or '.join(fitting)}, which can load {path}",
            f"{device.name} with {device.runtime}",
            "Choose another with --device NAME (`edgesearch devices`) or runtime=NAME.",
        )
    return check_listed(path)


def _batch(
    path: Path, manifest: dict[str, Any] | None, device: DeviceSpec, wanted: int | None
) -> int:
    """The batch size of a file."""
    if path.suffix == ".engine":  # only its runtime or its manifest knows the shape
        shapes = [] if manifest is None or "input" not in manifest else [manifest["input"]["shape"]]
    else:
        shapes = [shape for shape in read_inputs(path).values() if shape]
    if not shapes or any(isinstance(shape[0], str) for shape in shapes):
        return device.batch
    size = int(shapes[0][0])
    if wanted not in (None, size):
        raise EngineError(
            f"a dynamic batch in {path}, for --batch",
            f"the fixed shape {list(shapes[0])}",
            "Omit --batch, or export the model with export.batch=dynamic.",
        )
    return size


def _fixed(path: Path, device: DeviceSpec, fixed_path: Path) -> Path:
    """The file to measure: TensorRT needs a fixed batch size, other machines a single file."""
    if path.suffix != ".onnx":
        return path
    is_open = any(isinstance(n, str) for shape in read_inputs(path).values() for n in shape)
    if not device.runtime_record.compiles or not is_open:
        return _in_one_file(path, fixed_path) if device.transport == "ssh" else path
    fix_batch(path, fixed_path, device.batch)
    return fixed_path


def _in_one_file(path: Path, whole_path: Path) -> Path:
    """A copy of the model that includes its external weights, which are not transferred."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    if not any(weights.external_data for weights in model.graph.initializer):
        return path
    onnx.save(onnx.load(path), whole_path)
    return whole_path
