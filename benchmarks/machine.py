"""What a benchmark ran on; printed first by each script."""

from __future__ import annotations

import importlib.metadata
import platform

from devices import OnnxRuntime, take_fingerprint

PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "numpy")


def print_machine() -> None:
    """Print processor, memory and versions."""
    runtime = OnnxRuntime()
    found = take_fingerprint(runtime.name, runtime.version)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    print(
        f"{found.chip}, {found.cores} cores ({', '.join(found.instruction_sets)}), "
        f"{found.memory_bytes / 2**30:.0f} GiB; {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}, {versions}"
    )
