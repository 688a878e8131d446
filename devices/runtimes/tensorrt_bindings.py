"""TensorRT's Python modules: import, features, the logger."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from devices.errors import RuntimeMissingError


@dataclass(frozen=True)
class Family:
    """A product line of TensorRT.

    Attributes:
        title: Name for people.
        least_version: The first version with the features needed.
        modules: Names that its Python module may have.
        packages: Packages that provide the module.
        install: How to install it.
        portable: Its engines run on all GPUs of the kinds they were built for, which need not be
            present, and name these kinds in a header.
    """

    title: str
    least_version: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    install: str
    portable: bool = False


FAMILIES = {
    "tensorrt": Family(
        "TensorRT",
        "10",
        ("tensorrt", "tensorrt_bindings"),
        ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings", "tensorrt"),
        "pip install tensorrt; on a Jetson: sudo apt install python3-libnvinfer",
    ),
    "tensorrt-rtx": Family(
        "TensorRT for RTX",
        "1.7",
        ("tensorrt_rtx_bindings", "tensorrt_rtx"),
        ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx"),
        "pip install tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs",
        portable=True,
    ),
}
"""By the names of the runtimes."""


@dataclass(frozen=True)
class Features:
    """Features of a release, detected from its module because version numbers say less.

    Attributes:
        typed_flag: Networks must be asked to keep the types of the ONNX file (TensorRT 10).
        typed: Networks keep those types, always or when asked.
        absent_gpus: Engines can be built for compute capabilities that are not present (RTX).
        runtime_cache: Code compiled while loading an engine can be cached (RTX).
        capturable: A context reports whether a CUDA graph can capture it (RTX).
    """

    typed_flag: bool
    typed: bool
    absent_gpus: bool
    runtime_cache: bool
    capturable: bool

    @classmethod
    def of(cls, trt: Any) -> Features:
        """Detect the features of a module."""
        typed_flag = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        # Releases without the flags for reduced precision always keep the types.
        always_typed = not hasattr(trt.BuilderFlag, "FP16")
        runtime_config = getattr(trt, "IRuntimeConfig", None)
        return cls(
            typed_flag=typed_flag,
            typed=typed_flag or always_typed,
            absent_gpus=hasattr(trt, "ComputeCapability"),
            runtime_cache=hasattr(runtime_config, "create_runtime_cache"),
            capturable=hasattr(trt.IExecutionContext, "is_stream_capturable"),
        )


def load_bindings(family: str) -> Any:
    """Import the module of a family, a key of `FAMILIES`.

    Raises:
        RuntimeMissingError: If it is not installed, cannot be imported or is too old.
    """
    errors: list[Exception] = []
    for name in FAMILIES[family].modules:
        try:
            trt = importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: bindings without their libraries
            errors.append(error)
            continue
        _check_features(family, trt)
        return trt
    telling = [error for error in errors if not isinstance(error, ModuleNotFoundError)]
    raise _missing(family, str((telling or errors)[0]))


def _check_features(family: str, trt: Any) -> None:
    if FAMILIES[family].portable:
        if not hasattr(trt, "ComputeCapability"):
            raise _missing(family, "a version that cannot build for absent GPUs")
    elif not hasattr(trt, "NetworkDefinitionCreationFlag") or not Features.of(trt).typed:
        version = getattr(trt, "__version__", "an unknown version")
        raise _missing(family, f"{version}, which cannot keep a network's types")


def _missing(family: str, found: str) -> RuntimeMissingError:
    known = FAMILIES[family]
    remedy = f"Install it: {known.install}"
    required = f"the packages of {known.title} {known.least_version} or newer"
    return RuntimeMissingError(required, found, remedy)


@contextlib.contextmanager
def collected_errors(trt: Any) -> Iterator[tuple[Any, list[str]]]:
    """Yield TensorRT's logger, and a list that collects its errors within the block."""
    logger = _logger(trt)
    messages: list[str] = []
    before, logger.sink = logger.sink, messages.append
    try:
        yield logger, messages
    finally:
        logger.sink = before


@functools.lru_cache(maxsize=None)
def _logger(trt: Any) -> Any:
    """The logger of this process: TensorRT keeps the first that it is given."""
    severities = trt.ILogger.Severity

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the binding crashes without it
            self.sink: Callable[[str], None] | None = None

        def log(self, severity: Any, message: str) -> None:
            if self.sink and severity in (severities.ERROR, severities.INTERNAL_ERROR):
                self.sink(message)

    return Logger()
