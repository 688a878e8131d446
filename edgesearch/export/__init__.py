"""Subnets as ONNX files and engines, checked and documented."""

from edgesearch.export.engines import (
    FP16_FILE,
    INT8_FILE,
    MEASURED_FILES,
    ONNX_FILE,
    TENSORRT_INT8_FILE,
    WEIGHTS_FILE,
    TensorRTTarget,
    build_engines,
    save_weights,
)
from edgesearch.export.kit import KIT, write_kit
from edgesearch.export.load_subnet import load_subnet
from edgesearch.export.manifest import (
    MANIFEST,
    check_listed,
    check_runtime,
    make_manifest,
    read_manifest,
    sha256_of,
    write_manifest,
)
from edgesearch.export.onnx_export import assemble_network, export_blocks, export_network
from edgesearch.export.onnx_files import is_whole_model
from edgesearch.export.precision import convert_to_fp16, number_format
from edgesearch.export.quantize import convert_block, quantize_network
from edgesearch.export.verify import KnnImages, Parity, compare, verify_engine

__all__ = [
    "FP16_FILE",
    "INT8_FILE",
    "KIT",
    "KnnImages",
    "MANIFEST",
    "MEASURED_FILES",
    "ONNX_FILE",
    "WEIGHTS_FILE",
    "Parity",
    "TENSORRT_INT8_FILE",
    "TensorRTTarget",
    "assemble_network",
    "build_engines",
    "check_listed",
    "check_runtime",
    "compare",
    "convert_block",
    "convert_to_fp16",
    "export_blocks",
    "export_network",
    "is_whole_model",
    "load_subnet",
    "make_manifest",
    "number_format",
    "quantize_network",
    "read_manifest",
    "save_weights",
    "sha256_of",
    "verify_engine",
    "write_kit",
    "write_manifest",
]
