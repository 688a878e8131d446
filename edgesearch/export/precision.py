"""The same network in another number format."""

from __future__ import annotations

import os
from pathlib import Path


def convert_to_fp16(onnx_path: Path, fp16_path: Path) -> None:
    """Write a network with weights and arithmetic in half precision.

    Inputs and outputs stay in single precision, so that both files are used alike.

    Args:
        onnx_path: A network in single precision.
        fp16_path: Gets the network, atomically.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(onnx_path), keep_io_types=True)
    partial = fp16_path.with_name(fp16_path.name + ".partial")
    onnx.save(model, partial)
    os.replace(partial, fp16_path)
