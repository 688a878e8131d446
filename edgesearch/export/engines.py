"""From a subnet to the files that a device loads."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from devices import (
    OnnxRuntime,
    OrtBuilder,
    Runtime,
    TensorRTRtxBuilder,
    TensorRTRuntime,
    fix_batch,
    read_engine_header,
    read_inputs,
)
from devices.errors import DeviceError
from devices.files import replacing
from edgesearch.errors import ExportError
from edgesearch.export.first_difference import differs_from_file, differs_from_network
from edgesearch.export.verify import (
    TOLERANCES,
    KnnImages,
    compare,
    fits,
    verify_engine,
)
from edgesearch.formats.onnx_export import INPUT_NAME
from edgesearch.formats.precision import convert_to_fp16

ONNX_FILE = "subnet.onnx"
FP16_FILE = "subnet.fp16.onnx"
INT8_FILE = "subnet.int8.onnx"
TENSORRT_INT8_FILE = "subnet.int8-tensorrt.onnx"
"""In eight bits as TensorRT reads them, whatever the device is."""
MEASURED_FILES = {"fp32": ONNX_FILE, "fp16": FP16_FILE, "int8": INT8_FILE}
"""The file that is measured on a device of a precision."""
WEIGHTS_FILE = "subnet.safetensors"
_NO_LABELS = (
    "there are no images with labels. Put those of each class into a folder of its own (in shards: "
    "a .cls member beside each image), with data.holdout above 0, and export again"
)
_FEW_LABELS = (
    "fewer images with labels than a batch of {}. Add some, or set a smaller device.batch, and "
    "export again"
)


@dataclass(frozen=True)
class TensorRTTarget:
    """What TensorRT engines are built for.

    Attributes:
        compute_capabilities: Such as ("SM75", "SM86", "SM89"); one engine holds code for all.
        precision: "fp16", "fp32" (SM75 has no matrix products in fp32) or "int8".
    """

    compute_capabilities: tuple[str, ...]
    precision: str = "fp16"


def save_weights(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write a subnet's own weights as safetensors.

    Raises:
        FileError: They cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with replacing(path) as partial:
        try:
            # One entry: safetensors writes several in an order that changes from file to file.
            save_file(tensors, partial, {"edgesearch": json.dumps(metadata)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def build_engines(
    folder: Path,
    network: nn.Module,
    images: torch.Tensor,
    tensorrt: TensorRTTarget | None,
    precision: str = "fp32",
    tensorrt_int8: str = TENSORRT_INT8_FILE,
    *,
    logits: bool = False,
    knn: KnnImages | None = None,
    knn_glance: int = 64,
    batch: int = 1,
) -> dict[str, dict[str, Any]]:
    """Compile a winner's ONNX file, and check on real images whatever can run here.

    Args:
        folder: Holds `ONNX_FILE`, for engines in eight bits `tensorrt_int8`, too, and gets the
            other files.
        network: The subnet that the file came from.
        images: (N, C, H, W), normalised, to check on.
        tensorrt: What to build TensorRT engines for; None builds none.
        precision: That of the device: its file of `MEASURED_FILES` is in the folder, too.
        tensorrt_int8: The file that TensorRT engines in eight bits are built from.
        logits: The network gives classes.
        knn: Labelled images, for accuracies before and after; None if there are none.
        knn_glance: So many of them do where a precision is not judged by its accuracy.
        batch: Images in a run of TensorRT engines, where the ONNX file leaves it open.

    Returns:
        For each file's name what is known of it: runtime, precision, and parity where it ran, or
        a `parity_note`; with a `knn_note` where accuracies should have judged it and did not.

    Raises:
        ExportError: An engine differs from the subnet by more than its tolerance.
        CompileError: A runtime could not compile the network.
        RuntimeMissingError: TensorRT for RTX is not installed.
    """
    onnx_path = folder / ONNX_FILE
    check = _Check(folder, network.eval(), images, logits, knn, knn_glance)
    files = {ONNX_FILE: check.on_processor(onnx_path, "fp32")}
    measured = MEASURED_FILES[precision]
    if measured != ONNX_FILE:
        files[measured] = check.on_processor(folder / measured, precision)
    for source in (onnx_path, folder / measured):
        ort_path = source.with_suffix(OrtBuilder.suffix)
        if ort_path.name not in files and source.name != FP16_FILE:
            OrtBuilder().build(source, ort_path)
            kind = "fp32" if source == onnx_path else precision
            files[ort_path.name] = check.on_processor(ort_path, kind)
    if tensorrt is not None:
        sources = {"fp32": ONNX_FILE, "fp16": FP16_FILE, "int8": tensorrt_int8}
        source = folder / sources[tensorrt.precision]
        if source.name not in files:
            if source.name == FP16_FILE:
                convert_to_fp16(onnx_path, source)
            files[source.name] = check.on_processor(source, tensorrt.precision)
        engine_path = folder / f"subnet.{tensorrt.precision}{TensorRTRtxBuilder.suffix}"
        about = _build_tensorrt(source, engine_path, tensorrt, batch)
        files[engine_path.name] = {**about, **check.on_gpu(engine_path, tensorrt.precision)}
    return files


class _Check:
    """Compares files with the network that they came from; see `build_engines`."""

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        images: torch.Tensor,
        logits: bool,
        knn: KnnImages | None,
        knn_glance: int,
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
        self._accuracies: dict[bool, float] = {}
        self._runtime = OnnxRuntime(threads=os.cpu_count() or 1)

    def _knn_for(self, precision: str) -> tuple[KnnImages, float] | None:
        """Images to judge a precision by, and the trained network's accuracy on them."""
        if self._knn is None:
            return None
        judged = TOLERANCES[precision].max_knn_loss is not None
        images = self._knn if judged else self._knn.first(self._glance)
        if not len(images.train) or not len(images.test):  # fewer than a batch tell nothing
            return None
        if judged not in self._accuracies:
            self._accuracies[judged] = images.accuracy(self._embed, 64)
        return images, self._accuracies[judged]

    def _embed(self, pixels: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            outputs = self._network(torch.from_numpy(pixels))
        return [o.numpy() for o in (outputs if isinstance(outputs, list) else [outputs])]

    def on_processor(self, path: Path, precision: str) -> dict[str, Any]:
        """What is known of a file once it was compared."""
        return {
            "runtime": self._runtime.name,
            "runtime_version": self._runtime.version,
            "precision": precision,
            **self._compared(path, self._runtime, precision),
        }

    def on_gpu(self, path: Path, precision: str) -> dict[str, Any]:
        """Parity of an engine of TensorRT for RTX, or why it was not run."""
        try:
            runtime = TensorRTRuntime("tensorrt-rtx")
            runtime.load(path).close()
        except DeviceError as error:  # no GPU, or none of those that it is for
            return {"parity": None, "parity_note": f"built, not run here: {error.found}"}
        return self._compared(path, runtime, precision)

    def _compared(self, path: Path, runtime: Runtime, precision: str) -> dict[str, Any]:
        """Parity of a file, and what it could not be judged by."""
        parity = verify_engine(
            path,
            runtime,
            self._pixels,
            self._expected,
            precision,
            logits=self._logits,
            knn=self._knn_for(precision),
            locate=lambda: self._locate(path, precision),
        )
        facts: dict[str, Any] = {"parity": parity.to_dict()}
        if TOLERANCES[precision].max_knn_loss is not None and parity.knn_after is None:
            lacking = _NO_LABELS if self._knn is None else _FEW_LABELS.format(self._batch)
            facts["knn_note"] = f"not judged by kNN accuracy: {lacking}"
        return facts

    def _locate(self, path: Path, precision: str) -> str:
        if path.suffix != ".onnx":
            return "its ONNX file does not: the difference comes from compiling"
        batch = self._pixels[: self._batch]

        def alike(expected: np.ndarray, found: np.ndarray) -> bool:
            return fits(compare(expected, found), precision)

        if path == self._onnx_path:
            return differs_from_network(path, self._network, batch, alike)
        return differs_from_file(path, self._onnx_path, batch, alike)


def _build_tensorrt(
    source: Path, engine_path: Path, tensorrt: TensorRTTarget, batch: int
) -> dict[str, Any]:
    """Build the engine and read back from its header what it was built for."""
    capabilities = tensorrt.compute_capabilities
    with tempfile.TemporaryDirectory() as folder:
        if any(isinstance(shape[0], str) for shape in read_inputs(source).values()):
            fix_batch(source, Path(folder) / source.name, batch)
            source = Path(folder) / source.name
        TensorRTRtxBuilder(capabilities).build(source, engine_path)
    header = read_engine_header(engine_path)
    if set(header.compute_capabilities) != set(capabilities):
        raise ExportError(
            f"an engine for {', '.join(capabilities)}",
            f"one for {', '.join(header.compute_capabilities)} in {engine_path}",
            "Please report this with the version of TensorRT for RTX.",
        )
    return {
        "runtime": "tensorrt-rtx",
        "precision": tensorrt.precision,
        "compute_capabilities": list(header.compute_capabilities),
        "runtime_version": header.runtime_version,
    }
