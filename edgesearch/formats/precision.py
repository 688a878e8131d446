"""The same network in another number format."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from devices import ON_NVIDIA
from edgesearch.formats.onnx_files import save_model

NUMBER_FORMATS = ("fp32", "fp16", "u8s8", "u8s8-reduced", "s8s8", "s8s8-symmetric")
"""What a precision is on a runtime and processor. The names of the integer ones say the types of
activations and weights. `reduced` leaves weights seven bits; `symmetric` has no zero points."""

_WITH_DOT_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8"}


def number_format(
    precision: str,
    *,
    runtime: str,
    provider: str | None = None,
    machine: str = "",
    instruction_sets: Collection[str] = (),
) -> str:
    """The number format in which networks of a precision run best on a device.

    TensorRT wants signed numbers without zero points, Arm processors are fastest with signed
    ones, x86 processors with unsigned activations. Where those lack the dot products of VNNI, the
    sum of two products of eight bits saturates: weights then get seven bits
    (onnxruntime's documentation of quantization).

    Args:
        precision: "fp32", "fp16" or "int8".
        runtime: Name of the runtime.
        provider: Execution provider of onnxruntime; None for the processor.
        machine: Architecture of the device, such as "x86_64".
        instruction_sets: Those of its processor.

    Returns:
        One of `NUMBER_FORMATS`.
    """
    if precision != "int8":
        return precision
    if runtime.startswith("tensorrt") or provider in ON_NVIDIA:
        return "s8s8-symmetric"
    if machine.lower() in ("aarch64", "arm64"):
        return "s8s8"
    return "u8s8" if _WITH_DOT_PRODUCTS & set(instruction_sets) else "u8s8-reduced"


def convert_to_fp16(onnx_path: Path, fp16_path: Path, keep: Collection[str] | None = None) -> None:
    """Write a network with weights and arithmetic in half precision.

    Args:
        onnx_path: A network in single precision.
        fp16_path: Gets the network, atomically.
        keep: Inputs and outputs that stay in single precision; all of them if None, so that both
            files are used alike.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    kept = True if keep is None else list(keep)
    model = convert_float_to_float16(onnx.load(onnx_path), keep_io_types=kept)
    OnnxModel(model).topological_sort()  # the converter puts its casts at the end
    save_model(model, fp16_path)
