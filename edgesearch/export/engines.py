"""From a subnet to the files that a device loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from devices import OnnxRuntime, OrtBuilder, TensorRTRtxBuilder, read_engine_header
from edgesearch.errors import ExportError
from edgesearch.export.precision import convert_to_fp16
from edgesearch.export.verify import verify_engine

ONNX_FILE = "subnet.onnx"
FP16_FILE = "subnet.fp16.onnx"
INT8_FILE = "subnet.int8.onnx"
MEASURED_FILES = {"fp32": ONNX_FILE, "fp16": FP16_FILE, "int8": INT8_FILE}
"""The file that is measured on a device of a precision."""
WEIGHTS_FILE = "subnet.safetensors"


@dataclass(frozen=True)
class TensorRTTarget:
    """What TensorRT engines are built for.

    Attributes:
        compute_capabilities: Such as ("SM75", "SM86", "SM89"); one engine holds code for all.
        precision: "fp16" or "fp32" (SM75 has no matrix products in fp32).
    """

    compute_capabilities: tuple[str, ...]
    precision: str = "fp16"


def save_weights(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write a subnet's own weights as safetensors.

    Raises:
        ExportError: They cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    try:
        # One entry: safetensors writes several in an order that changes from file to file.
        save_file(tensors, path, {"edgesearch": json.dumps(metadata)})
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"room to write {path}",
            str(error),
            "Free space or choose another output_dir, then run the same command again.",
        ) from error


def build_engines(
    folder: Path,
    network: nn.Module,
    images: torch.Tensor,
    tensorrt: TensorRTTarget | None,
    precision: str = "fp32",
) -> dict[str, dict[str, Any]]:
    """Compile a winner's ONNX file, and check on real images whatever can run here.

    Args:
        folder: Holds `ONNX_FILE` and gets the other files.
        network: The subnet that the file came from.
        images: (N, C, H, W), normalised, to check on.
        tensorrt: What to build TensorRT engines for; None builds none.
        precision: That of the device: its file of `MEASURED_FILES` is in the folder, too.

    Returns:
        For each file's name what is known of it: runtime, precision, and parity where it ran.

    Raises:
        ExportError: An engine differs from the subnet by more than its tolerance.
        CompileError: A runtime could not compile the network.
        RuntimeMissingError: TensorRT for RTX is not installed.
    """
    onnx_path = folder / ONNX_FILE
    with torch.no_grad():
        expected = network.eval()(images).numpy()
    pixels = np.ascontiguousarray(images.contiguous().numpy())
    runtime = OnnxRuntime(threads=1)

    def checked(path: Path, precision: str) -> dict[str, Any]:
        parity = verify_engine(path, runtime, pixels, expected, precision)
        return {
            "runtime": runtime.name,
            "runtime_version": runtime.version,
            "precision": precision,
            "parity": parity.to_dict(),
        }

    files = {ONNX_FILE: checked(onnx_path, "fp32")}
    measured = MEASURED_FILES[precision]
    files[measured] = checked(folder / measured, precision)
    ort_path = onnx_path.with_suffix(OrtBuilder.suffix)
    OrtBuilder().build(onnx_path, ort_path)
    files[ort_path.name] = checked(ort_path, "fp32")
    if tensorrt is not None:
        source = onnx_path
        if tensorrt.precision == "fp16":
            source = folder / FP16_FILE
            convert_to_fp16(onnx_path, source)
            files[source.name] = checked(source, "fp16")
        engine_path = folder / f"subnet.{tensorrt.precision}{TensorRTRtxBuilder.suffix}"
        files[engine_path.name] = _build_tensorrt(
            source, engine_path, tensorrt.compute_capabilities, tensorrt.precision
        )
    return files


def _build_tensorrt(
    source: Path, engine_path: Path, compute_capabilities: Sequence[str], precision: str
) -> dict[str, Any]:
    """Build the engine and read back from its header what it was built for."""
    TensorRTRtxBuilder(compute_capabilities).build(source, engine_path)
    header = read_engine_header(engine_path)
    if set(header.compute_capabilities) != set(compute_capabilities):
        raise ExportError(
            f"an engine for {', '.join(compute_capabilities)}",
            f"one for {', '.join(header.compute_capabilities)} in {engine_path}",
            "Please report this with the version of TensorRT for RTX.",
        )
    return {
        "runtime": "tensorrt-rtx",
        "precision": precision,
        "compute_capabilities": list(header.compute_capabilities),
        "runtime_version": header.runtime_version,
        "parity": None,
        "parity_note": "built, not run: running it needs an NVIDIA RTX GPU",
    }
