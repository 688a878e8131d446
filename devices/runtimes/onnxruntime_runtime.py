"""onnxruntime: its record, sessions that can be timed, and compiling `.ort` files."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from devices.errors import CompileError, EngineError, RuntimeMissingError
from devices.files import replacing
from devices.interruptions import thread_ids
from devices.runtimes.checks import check_inputs, draw_inputs
from devices.runtimes.onnx_layers import explain_failure
from devices.runtimes.onnxruntime_session import (
    CPU,
    first_line,
    import_onnxruntime,
    open_session,
    remedy_of,
    session_options,
)
from devices.runtimes.protocol import Runtime, Session
from devices.runtimes.record import RuntimeRecord

if TYPE_CHECKING:
    import onnxruntime

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}

_Unit = Literal["processor", "nvidia", "other"]


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        full_name: onnxruntime's name for it.
        computes_on: For "nvidia", inputs and outputs are bound in GPU memory.
        package: The onnxruntime build that includes it; None if it must be built by hand.
    """

    full_name: str
    computes_on: _Unit
    package: str | None = None


PROVIDERS = {
    "cpu": Provider(CPU, "processor"),
    "cuda": Provider("CUDAExecutionProvider", "nvidia", "onnxruntime-gpu"),
    "tensorrt": Provider("TensorrtExecutionProvider", "nvidia", "onnxruntime-gpu"),
    "tensorrt-rtx": Provider("NvTensorRTRTXExecutionProvider", "nvidia", "onnxruntime-trt-rtx"),
    "openvino": Provider("OpenVINOExecutionProvider", "other", "onnxruntime-openvino"),
    "directml": Provider("DmlExecutionProvider", "other", "onnxruntime-directml"),
    "coreml": Provider("CoreMLExecutionProvider", "other"),
    "migraphx": Provider("MIGraphXExecutionProvider", "other", "onnxruntime-migraphx"),
    "qnn": Provider("QNNExecutionProvider", "other", "onnxruntime-qnn"),
    "xnnpack": Provider("XnnpackExecutionProvider", "processor"),
    "acl": Provider("ACLExecutionProvider", "processor"),
}
"""Execution providers by the names used in device descriptions."""
_DOT_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8"}


class OnnxRuntimeRecord(RuntimeRecord):
    """Record of onnxruntime with all its execution providers."""

    name = "onnxruntime"
    endings = (".onnx", ".ort")
    packages = ("onnxruntime",)
    install = "pip install onnxruntime"
    least_version = "1.15"
    providers = tuple(PROVIDERS)

    def open(self, threads: int, batch: int, provider: str | None) -> Runtime:
        """See `RuntimeRecord.open`."""
        return OnnxRuntime(threads, provider or "cpu", batch)

    def installed_version(self) -> str:
        """See `RuntimeRecord.installed_version`."""
        return str(import_onnxruntime().__version__)

    def detect(self) -> tuple[str, tuple[str, ...]]:
        """Import it, from whichever package; see `RuntimeRecord.detect`."""
        try:
            import onnxruntime

            return onnxruntime.__version__, tuple(onnxruntime.get_available_providers())
        except Exception as error:  # a broken installation may raise anything
            found = f"cannot be imported: {error}"
            raise RuntimeMissingError("the package onnxruntime", found, self.install) from error

    def number_format(
        self,
        precision: str,
        provider: str | None = None,
        machine: str = "",
        instruction_sets: Collection[str] = (),
    ) -> str:
        """Choose the integer format by hardware; see `RuntimeRecord.number_format`.

        TensorRT requires signed numbers without zero points. Arm is fastest with signed numbers,
        x86 with unsigned activations. Without VNNI, the sum of two 8-bit products saturates on
        x86: weights are reduced to 7 bits (onnxruntime documentation, quantization).
        """
        if precision != "int8":
            return precision
        if self.computes_on(provider) == "nvidia":
            return "s8s8-symmetric"
        if machine.lower() in ("aarch64", "arm64"):
            return "s8s8"
        return "u8s8" if _DOT_PRODUCTS & set(instruction_sets) else "u8s8-reduced"

    def reason_against(self, precision: str, provider: str | None) -> str | None:
        """Half precision is slower on CPUs; see `RuntimeRecord.reason_against`."""
        if precision == "fp16" and self.computes_on(provider) == "processor":
            return "onnxruntime computes it in fp32 on processors, which takes longer"
        return None

    def suppresses_boxes(self, provider: str | None) -> bool:
        """Processors have the operation; see `RuntimeRecord.suppresses_boxes`.

        With other providers the outputs of the network would be copied to the processor.
        """
        return self.computes_on(provider) == "processor"

    def computes_on(self, provider: str | None) -> _Unit:
        """See `RuntimeRecord.computes_on`."""
        return PROVIDERS[provider or "cpu"].computes_on


class OnnxRuntime:
    """Runs `.onnx` and `.ort` files on the CPU or through an execution provider.

    An `.onnx` file is optimised for this machine when it is loaded. Sessions do not disturb each
    other: one thread needs no pool, and with more each session's pool stops spinning when a run
    ends. (A process-wide pool gives equally good predictions, but onnxruntime then refuses
    sessions with their own pools for the rest of the process.)

    Operators that the provider lacks run on the CPU. A provider that cannot start is an error:
    there is no fallback.

    Args:
        threads: Threads within an operator; operators run one after another.
        provider: A key of `PROVIDERS`.
        batch: Batch of models whose batch dimension is open.

    Raises:
        RuntimeMissingError: If onnxruntime is not installed, or its build lacks the provider.
    """

    name = "onnxruntime"

    def __init__(self, threads: int = 1, provider: str = "cpu", batch: int = 1) -> None:
        self._threads = threads
        self._batch = batch
        self._provider = provider
        self.version: str = import_onnxruntime().__version__
        _check_provider(provider)
        self.settings: dict[str, Any] = {
            "provider": provider,
            "threads": threads,
            "inter_op_threads": 1,
            "execution_mode": "sequential",
            "graph_optimization": "all",
            "spinning": "stopped after each run",
        }

    def load(self, path: Path) -> Session:
        """Load a model with fixed shapes or an open batch dimension; see `Runtime.load`."""
        if path.suffix not in OnnxRuntimeRecord.endings:
            endings = " and ".join(OnnxRuntimeRecord.endings)
            raise EngineError(f"onnxruntime loads {endings} files", str(path), "Pass one.")
        options = session_options()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = import_onnxruntime().ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.force_spinning_stop", "1")
        wanted = PROVIDERS[self._provider].full_name
        providers = list(dict.fromkeys([wanted, CPU]))
        before = thread_ids()
        try:
            session = open_session(path, options, providers)
        except Exception as error:
            raise EngineError(
                f"onnxruntime {self.version} must be able to load {path}",
                explain_failure(error, path, providers),
                remedy_of(error, "Export or compile the model again."),
            ) from error
        if session.get_providers()[0] != wanted:
            raise EngineError(
                f"onnxruntime {self.version} must be able to start its provider {wanted}",
                f"only {', '.join(session.get_providers())}",
                "Check the driver and the libraries that the provider needs.",
            )
        workers = tuple(thread_ids() - before)
        unit = PROVIDERS[self._provider].computes_on
        # A pool whose threads the system hides cannot be watched.
        is_watched = unit == "processor" and (self._threads == 1 or workers)
        memory = "cuda" if unit == "nvidia" else "cpu"
        return _OnnxSession(session, path, memory, self._batch, workers if is_watched else None)


class OrtBuilder:
    """Compiles ONNX files to `.ort` files, which load without being optimised again.

    Args:
        portable: Whether the file must run on other machines. Then the memory layout is the
            general one, about 27 % slower for convolutional networks than the layout for the
            compiling machine's instruction set; loading does not change the layout.
    """

    suffix = ".ort"

    def __init__(self, portable: bool = True) -> None:
        self._portable = portable

    def build(self, onnx_path: Path, engine_path: Path) -> None:
        """See `EngineBuilder.build`."""
        options = session_options("ORT_ENABLE_EXTENDED" if self._portable else "ORT_ENABLE_ALL")
        options.add_session_config_entry("session.save_model_format", "ORT")
        with replacing(engine_path, shared=True) as temporary:
            options.optimized_model_filepath = str(temporary)
            try:
                open_session(onnx_path, options)
            except Exception as error:
                raise CompileError(
                    f"onnxruntime must be able to compile {onnx_path} to {engine_path}",
                    explain_failure(error, onnx_path, [CPU]),
                    remedy_of(
                        error,
                        "Check the model with onnx.checker, and that the folder can be written.",
                    ),
                ) from error


class _OnnxSession(Session):
    """A loaded model; inputs and outputs for timing are bound once, in the memory of its device."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        path: Path,
        memory: str,
        batch: int,
        workers: tuple[int, ...] | None = None,
    ) -> None:
        self.workers = workers
        self._session: onnxruntime.InferenceSession | None = session
        self._path = path
        self._memory = memory
        self._types = {}
        self.inputs: dict[str, tuple[int, ...]] = {}
        for node in session.get_inputs():
            self.inputs[node.name] = _fixed_shape(node, path, batch)
            self._types[node.name] = np.dtype(_numpy_type(node, path))
        self._bound: list[NDArray[Any]] = []
        self._binding = self._bind(session)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        session = self._open_session()
        check_inputs(self.inputs, self._types, inputs)
        names = [node.name for node in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, dict(inputs))))
        except Exception as error:
            raise self._failed(error) from error

    def timings_ms(self) -> Iterator[float]:
        session = self._open_session()
        for array in self._bound:  # brings the inputs into the caches
            array.max()
        while True:
            try:
                begin_ns = time.perf_counter_ns()
                session.run_with_iobinding(self._binding)
                if self._memory != "cpu":
                    self._binding.synchronize_outputs()
                end_ns = time.perf_counter_ns()
            except Exception as error:
                raise self._failed(error) from error
            yield (end_ns - begin_ns) / 1e6

    def close(self) -> None:
        self._session = None
        self._binding = None

    def _open_session(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise EngineError(
                "an open session", f"the session of {self._path} is closed", "Load it again."
            )
        return self._session

    def _failed(self, error: Exception) -> EngineError:
        return EngineError(
            f"onnxruntime must be able to run {self._path}",
            first_line(error),
            remedy_of(error, "Export the model again."),
        )

    def _bind(self, session: onnxruntime.InferenceSession) -> Any:
        """Bind random inputs and all outputs of known shape, so that timing includes no copies."""
        value = import_onnxruntime().OrtValue
        binding = session.io_binding()
        for name, array in draw_inputs(self.inputs, self._types).items():
            self._bound.append(array)  # the OrtValue shares its memory
            bound = value.ortvalue_from_numpy(array, self._memory, 0)
            binding.bind_ortvalue_input(name, bound)
        for node in session.get_outputs():
            if node.type in _TYPES and all(isinstance(size, int) for size in node.shape):
                output = value.ortvalue_from_shape_and_type(
                    list(node.shape), _TYPES[node.type], self._memory, 0
                )
                binding.bind_ortvalue_output(node.name, output)
            else:
                binding.bind_output(node.name, self._memory)
        return binding


def _check_provider(provider: str) -> None:
    available = import_onnxruntime().get_available_providers()
    offered = [name for name, known in PROVIDERS.items() if known.full_name in available]
    if provider not in offered:
        package = PROVIDERS[provider].package
        raise RuntimeMissingError(
            f"an execution provider that this build of onnxruntime has: {', '.join(offered)}",
            repr(provider),
            f"Install the build that has it: pip install {package} (in place of onnxruntime)."
            if package
            else "Choose another device.provider, or install a build of onnxruntime that has it.",
        )


def _fixed_shape(node: Any, path: Path, batch: int) -> tuple[int, ...]:
    first, *rest = node.shape or [1]
    if not all(isinstance(size, int) for size in rest):
        raise EngineError(
            f"the inputs of {path} must have fixed shapes, but for the batch",
            f"{node.name!r} of shape {node.shape}",
            "Export the model without other dynamic axes.",
        )
    return (first if isinstance(first, int) else batch, *rest) if node.shape else ()


def _numpy_type(node: Any, path: Path) -> type[np.generic]:
    if node.type not in _TYPES:
        raise EngineError(
            f"the inputs of {path} must be of one of the types {', '.join(_TYPES)}",
            f"{node.name!r} of type {node.type}",
            "Export the model with another input type.",
        )
    return _TYPES[node.type]
