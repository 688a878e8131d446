"""Compiles a winner's ONNX files, and verifies those that can run here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from devices import (
    DeviceSpec,
    OnnxRuntime,
    OrtBuilder,
    Runtime,
    TensorRTBuilder,
    TensorRTRuntime,
    fix_batch,
    read_engine_header,
    read_inputs,
)
from devices.errors import DeviceError
from devices.runtimes.known_runtimes import RUNTIMES
from edgesearch.errors import DifferenceError, ExportError
from edgesearch.export.first_difference import differs_from_file, differs_from_network
from edgesearch.export.verify import (
    KnnImages,
    TaskImages,
    compare,
    fits,
    verify_engine,
    verify_post_processing,
)
from edgesearch.formats.fp16 import FP16
from edgesearch.formats.fp32 import FP32
from edgesearch.formats.onnx_export import INPUT_NAME
from edgesearch.formats.onnx_files import save_model
from edgesearch.formats.precision import Precision
from edgesearch.formats.precisions import PRECISIONS, precision_of
from edgesearch.supernet.weights import save_tensors
from edgesearch.tasks.task import InGraph

ONNX_FILE = FP32.file
WEIGHTS_FILE = "subnet.safetensors"
TENSORRT_RTX = "tensorrt-rtx"
"""Its engines are built for any device; building needs no GPU."""
_NO_LABELS = (
    "there are no labeled images. Put each class into its own folder (in shards: a .cls member "
    "beside each image), set data.holdout above 0, and export again"
)
_FEW_LABELS = (
    "there are fewer labeled images than a batch of {}. Add some, or set a smaller device.batch, "
    "and export again"
)


@dataclass(frozen=True)
class TensorRTTarget:
    """Target of TensorRT for RTX engines: one engine contains code for all compute capabilities."""

    compute_capabilities: tuple[str, ...]
    precision: str = FP16.name

    @classmethod
    def of_device(
        cls, device: DeviceSpec, compute_capabilities: Sequence[str], precision: str | None
    ) -> TensorRTTarget:
        """The target for a device.

        Without a precision, the device's if it runs TensorRT engines below fp32, otherwise fp16.
        """
        if precision is None:
            own = precision_of(device)
            runs_engines = TensorRTBuilder.suffix in device.runtime_record.endings
            is_less = own.value_bytes < FP32.value_bytes
            precision = own.name if runs_engines and is_less else FP16.name
        return cls(tuple(compute_capabilities), precision)


@dataclass(frozen=True)
class Engines:
    """Files of a winner that were compiled and verified.

    Attributes:
        files: Facts by file name: runtime, precision, and `parity` or a `parity_note`; a `knn_note`
            if kNN accuracy should have been judged and could not.
        left_out: Files that are not among them because they differ from the trained network, with
            the reason.
    """

    files: dict[str, dict[str, Any]]
    left_out: dict[str, str]


def save_weights(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write a subnet's weights as safetensors.

    Raises:
        FileError: They cannot be written.
    """
    save_tensors(path, network.state_dict(), metadata)


def build_engines(
    folder: Path,
    network: nn.Module,
    images: torch.Tensor,
    tensorrt: TensorRTTarget | None,
    precision: Precision = FP32,
    source: str = ONNX_FILE,
    *,
    logits: bool = False,
    knn: KnnImages | None = None,
    knn_glance: int = 64,
    batch: int = 1,
    task: TaskImages | None = None,
    post_processing: bool = False,
) -> Engines:
    """Compile a winner's ONNX files, and verify on real images those that can run here.

    The folder contains `ONNX_FILE`, the file of `precision` and `source`, from which TensorRT
    engines are built; `images` are (N, C, H, W), normalised. Precisions not judged by kNN accuracy
    use only `knn_glance` of the images in `knn`. `task` judges whole networks. `batch` replaces
    a dynamic batch for TensorRT. With `post_processing`, there are files that end with that of
    the task, where it has one.

    What is made for TensorRT alone is left out if it differs too much; `precision` is the device's.

    Raises:
        DifferenceError: A file for the device, or that in fp32, differs from the subnet by more
            than its tolerance.
        CompileError: A runtime could not compile the network.
        RuntimeMissingError: TensorRT for RTX is not installed.
    """
    check = _Check(folder, network.eval(), images, logits, knn, knn_glance, task)
    measured = {FP32.file: FP32, precision.file: precision}
    files = {name: check.on_processor(folder / name, each) for name, each in measured.items()}
    for name, each in measured.items():
        if _has_ort(each):
            ort_path = _build_ort(folder / name)
            files[ort_path.name] = check.on_processor(ort_path, each)
    if post_processing and task is not None and task.in_graph is not None:
        files |= _with_post_processing(folder, measured, task.in_graph, check)
    left_out: dict[str, str] = {}
    if tensorrt is not None:
        for_engine = PRECISIONS[tensorrt.precision]
        engine_path = folder / f"subnet.{for_engine.name}{TensorRTBuilder.suffix}"
        runs_on_device = source in files
        try:
            if not runs_on_device:
                files[source] = check.on_processor(folder / source, for_engine)
            about = _build_tensorrt(folder / source, engine_path, tensorrt, batch)
            files[engine_path.name] = {**about, **check.on_gpu(engine_path, for_engine)}
        except DifferenceError as error:
            if runs_on_device:
                raise
            for name in (source, engine_path.name):
                left_out[name] = f"required: {error.required}; found: {error.found}"
                files.pop(name, None)
                (folder / name).unlink(missing_ok=True)
    return Engines(files, left_out)


def _has_ort(precision: Precision) -> bool:
    return RUNTIMES[OnnxRuntime.name].reason_against(precision.name, None) is None


def _build_ort(onnx_path: Path) -> Path:
    path = onnx_path.with_suffix(OrtBuilder.suffix)
    OrtBuilder().build(onnx_path, path)
    return path


def with_post_processing(name: str, in_graph: InGraph) -> str:
    """The name of a network's file that ends with its post-processing."""
    return in_graph.stem + name.removeprefix(Path(ONNX_FILE).stem)


def _with_post_processing(
    folder: Path, measured: Mapping[str, Precision], in_graph: InGraph, check: _Check
) -> dict[str, dict[str, Any]]:
    """Write and check the files that end with the post-processing; returns their facts."""
    import onnx

    files = {}
    for name, precision in measured.items():
        path = folder / with_post_processing(name, in_graph)
        save_model(in_graph.joined(onnx.load(folder / name)), path)
        for each in (path, *([_build_ort(path)] if _has_ort(precision) else [])):
            files[each.name] = check.post_processing(each, precision)
    return files


class _Check:
    """Compares files with the exported network; see `build_engines`."""

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        images: torch.Tensor,
        logits: bool,
        knn: KnnImages | None,
        knn_glance: int,
        task: TaskImages | None = None,
    ) -> None:
        self._onnx_path = folder / ONNX_FILE
        self._network = network
        self._logits = logits
        self._pixels = np.ascontiguousarray(images.contiguous().numpy())
        self._expected = self._embed(self._pixels)
        size = read_inputs(self._onnx_path)[INPUT_NAME][0]
        self._batch = size if isinstance(size, int) else 1
        self._knn = None if knn is None else knn.whole_batches(self._batch)
        self._glance = max(self._batch, knn_glance - knn_glance % self._batch)
        self._of_task = task
        self._task: tuple[TaskImages, float] | None = None
        if task is not None and len(task.whole_batches(self._batch).images):
            whole = task.whole_batches(self._batch)
            self._task = whole, whole.judge(self._embed, 64)
        self._accuracies: dict[bool, float] = {}
        self._runtime = OnnxRuntime(threads=os.cpu_count() or 1)

    def _knn_for(self, precision: Precision) -> tuple[KnnImages, float] | None:
        """Images for the kNN accuracy of a precision, and the trained network's accuracy."""
        if self._knn is None:
            return None
        judged = precision.judged_by_labels
        images = self._knn if judged else self._knn.first(self._glance)
        if not len(images.train) or not len(images.test):  # fewer than one batch
            return None
        if judged not in self._accuracies:
            self._accuracies[judged] = images.accuracy(self._embed, 64)
        return images, self._accuracies[judged]

    def _embed(self, pixels: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = self._network(torch.from_numpy(pixels))
        several = isinstance(outputs, list | tuple)
        return [o.numpy() for o in (outputs if several else [outputs])]

    def on_processor(self, path: Path, precision: Precision) -> dict[str, Any]:
        """Verify a file on the CPU; returns its facts."""
        return {**self._about(precision), **self._compared(path, self._runtime, precision)}

    def post_processing(self, path: Path, precision: Precision) -> dict[str, Any]:
        """Verify a file that ends with the task's post-processing; returns its facts."""
        images, before = self._task or (self._of_task, None)
        assert images is not None
        parity = verify_post_processing(
            path, self._runtime, self._pixels, self._expected, precision, images, before
        )
        return {**self._about(precision), "post_processing": True, "parity": asdict(parity)}

    def _about(self, precision: Precision) -> dict[str, Any]:
        return {
            "runtime": self._runtime.name,
            "runtime_version": self._runtime.version,
            "precision": precision.name,
        }

    def on_gpu(self, path: Path, precision: Precision) -> dict[str, Any]:
        """Parity of a TensorRT for RTX engine, or why it was not run."""
        try:
            runtime = TensorRTRuntime(TENSORRT_RTX)
            runtime.load(path).close()
        except DeviceError as error:  # no GPU, or not one of the target
            return {"parity": None, "parity_note": f"built, not run here: {error.found}"}
        return self._compared(path, runtime, precision)

    def _compared(self, path: Path, runtime: Runtime, precision: Precision) -> dict[str, Any]:
        """Parity of a file, with a note if kNN accuracy is missing."""
        parity = verify_engine(
            path,
            runtime,
            self._pixels,
            self._expected,
            precision,
            logits=self._logits,
            judged_by=self._task or self._knn_for(precision),
            locate=lambda: self._locate(path, precision),
        )
        facts: dict[str, Any] = {"parity": asdict(parity)}
        judged = parity.knn_after is not None or parity.metric_after is not None
        if precision.judged_by_labels and not judged:
            lacking = _NO_LABELS if self._knn is None else _FEW_LABELS.format(self._batch)
            facts["knn_note"] = f"not judged by kNN accuracy: {lacking}"
        return facts

    def _locate(self, path: Path, precision: Precision) -> str:
        if path.suffix != ".onnx":
            return "its ONNX file does not differ: compiling causes the difference"
        batch = self._pixels[: self._batch]

        def is_close(expected: np.ndarray, found: np.ndarray) -> bool:
            return fits(compare(expected, found), precision.tolerance)

        if path == self._onnx_path:
            return differs_from_network(path, self._network, batch, is_close)
        return differs_from_file(path, self._onnx_path, batch, is_close)


def _build_tensorrt(
    source: Path, engine_path: Path, tensorrt: TensorRTTarget, batch: int
) -> dict[str, Any]:
    """Build the engine; returns facts from its header."""
    capabilities = tensorrt.compute_capabilities
    with tempfile.TemporaryDirectory() as folder:
        if any(isinstance(shape[0], str) for shape in read_inputs(source).values()):
            fix_batch(source, Path(folder) / source.name, batch)
            source = Path(folder) / source.name
        TensorRTBuilder(TENSORRT_RTX, capabilities).build(source, engine_path)
    header = read_engine_header(engine_path)
    if set(header.compute_capabilities) != set(capabilities):
        raise ExportError(
            f"an engine for {', '.join(capabilities)}",
            f"one for {', '.join(header.compute_capabilities)} in {engine_path}",
            "Please report this with the version of TensorRT for RTX.",
        )
    return {
        "runtime": TENSORRT_RTX,
        "precision": tensorrt.precision,
        "compute_capabilities": list(header.compute_capabilities),
        "runtime_version": header.runtime_version,
    }
