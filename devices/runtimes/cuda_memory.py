"""GPU memory, streams and events, through pycuda or cuda-bindings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from devices.errors import DeviceError, EngineError, RuntimeMissingError

_GPU = "an NVIDIA GPU and its driver"
NO_GPU_REMEDY = (
    "Install the driver (nvidia-smi must list the GPU), or use a machine with a GPU: run the same "
    "command there or, over ssh, here with device.transport=ssh device.host=NAME "
    "(`bench`: transport=ssh host=NAME)."
)
_RUN_REMEDY = "Free GPU memory, or look for other programs that use the GPU."


class DeviceBuffer(Protocol):
    """A buffer in GPU memory. All methods but `free` raise EngineError."""

    address: int

    def write(self, array: NDArray[Any]) -> None:
        """Copy an array of the buffer's size to the GPU."""

    def read(self, array: NDArray[Any]) -> None:
        """Fill a contiguous array of the buffer's size from the GPU."""

    def free(self) -> None:
        """Free the memory; call once."""


class Stream(Protocol):
    """A CUDA stream, in order with copies to and from buffers."""

    handle: int
    """Its `CUstream`."""

    def synchronize(self) -> None:
        """Wait until all work is done; raises EngineError if some of it failed."""

    def time_ms(self, work: Callable[[], None]) -> float:
        """Time work on the GPU between two events.

        The CPU spins meanwhile: sleeping would lower the clocks of both CPU and GPU.

        Args:
            work: Enqueues work into this stream without waiting for it.

        Raises:
            EngineError: If the work failed.
        """

    def close(self) -> None:
        """Destroy the stream; call once, when its work is done."""


class Cuda(Protocol):
    """A GPU through one of the packages. All methods raise EngineError."""

    package: str
    gpu: str
    compute_capability: str
    """Such as `8.9`."""

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """Allocate GPU memory."""

    def open_stream(self) -> Stream:
        """Open a stream."""


class PyCuda:
    """The GPU through pycuda, in the primary context, which other libraries of the process share.

    Raises:
        RuntimeMissingError: If pycuda is not installed.
        DeviceError: If there is no driver or no GPU.
    """

    package = "pycuda"

    def __init__(self) -> None:
        try:
            import pycuda
        except ImportError as error:
            raise _missing("pycuda", error) from error
        try:
            # The context of pycuda.autoinit would clash with other libraries.
            import pycuda.autoprimaryctx
            import pycuda.driver
        except Exception as error:  # no libcuda: ImportError; no GPU: pycuda's own, RuntimeError
            raise DeviceError(_GPU, f"{error} (pycuda)", NO_GPU_REMEDY) from error
        self._driver = pycuda.driver
        device = pycuda.autoprimaryctx.device
        self.gpu: str = device.name()
        self.compute_capability = ".".join(map(str, device.compute_capability()))

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """See `Cuda.allocate`."""
        return _PyCudaBuffer(self._driver, size_bytes)

    def open_stream(self) -> Stream:
        """See `Cuda.open_stream`."""
        return _PyCudaStream(self._driver)


class _PyCudaBuffer:
    def __init__(self, driver: Any, size_bytes: int) -> None:
        self._driver = driver
        with _pycuda_errors(driver, f"to take {size_bytes} bytes of the GPU's memory"):
            self._allocation = driver.mem_alloc(size_bytes)
        self.address = int(self._allocation)

    def write(self, array: NDArray[Any]) -> None:
        with _pycuda_errors(self._driver, "to copy to the GPU"):
            self._driver.memcpy_htod(self._allocation, np.ascontiguousarray(array))

    def read(self, array: NDArray[Any]) -> None:
        with _pycuda_errors(self._driver, "to copy from the GPU"):
            self._driver.memcpy_dtoh(array, self._allocation)

    def free(self) -> None:
        self._allocation.free()


class _PyCudaStream:
    def __init__(self, driver: Any) -> None:
        self._driver = driver
        with _pycuda_errors(driver, "to open a stream"):
            self._stream: Any = driver.Stream()
            self._events: Any = (driver.Event(), driver.Event())
        self.handle: int = self._stream.handle

    def synchronize(self) -> None:
        with _pycuda_errors(self._driver, "to finish its work"):
            self._stream.synchronize()

    def time_ms(self, work: Callable[[], None]) -> float:
        begin, end = self._events
        with _pycuda_errors(self._driver, "to finish its work"):
            begin.record(self._stream)
            work()
            end.record(self._stream)
            while not end.query():
                pass
            return float(begin.time_till(end))

    def close(self) -> None:
        self._events = self._stream = None  # their destructors release them


@contextlib.contextmanager
def _pycuda_errors(driver: Any, required: str) -> Iterator[None]:
    try:
        yield
    except driver.Error as error:
        raise EngineError(f"CUDA must be able {required}", str(error), _RUN_REMEDY) from error


class CudaBindings:
    """The GPU through NVIDIA's cuda-bindings.

    Raises:
        RuntimeMissingError: If cuda-bindings is not installed.
        DeviceError: If there is no driver or no GPU.
    """

    package = "cuda-bindings"

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise _missing("cuda-bindings", error) from error
        self._runtime = runtime
        try:
            if _checked(runtime, runtime.cudaGetDeviceCount()) < 1:
                raise EngineError("", "no GPU", "")
            _checked(runtime, runtime.cudaSetDevice(0))
            _checked(runtime, runtime.cudaFree(0))  # creates the context
            properties = _checked(runtime, runtime.cudaGetDeviceProperties(0))
        except EngineError as error:
            raise DeviceError(_GPU, f"{error.found} (cuda-bindings)", NO_GPU_REMEDY) from error
        self.gpu: str = properties.name.split(b"\0")[0].decode()
        self.compute_capability = f"{properties.major}.{properties.minor}"

    def allocate(self, size_bytes: int) -> DeviceBuffer:
        """See `Cuda.allocate`."""
        return _BindingsBuffer(self._runtime, size_bytes)

    def open_stream(self) -> Stream:
        """See `Cuda.open_stream`."""
        return _BindingsStream(self._runtime)


class _BindingsBuffer:
    def __init__(self, runtime: Any, size_bytes: int) -> None:
        self._runtime = runtime
        required = f"to take {size_bytes} bytes of the GPU's memory"
        self.address = int(_checked(runtime, runtime.cudaMalloc(size_bytes), required))

    def write(self, array: NDArray[Any]) -> None:
        array = np.ascontiguousarray(array)
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        copied = self._runtime.cudaMemcpy(self.address, array.ctypes.data, array.nbytes, kind)
        _checked(self._runtime, copied, "to copy to the GPU")

    def read(self, array: NDArray[Any]) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        copied = self._runtime.cudaMemcpy(array.ctypes.data, self.address, array.nbytes, kind)
        _checked(self._runtime, copied, "to copy from the GPU")

    def free(self) -> None:
        self._runtime.cudaFree(self.address)


class _BindingsStream:
    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._stream = self._check(runtime.cudaStreamCreate(), "to open a stream")
        self._events = [self._check(runtime.cudaEventCreate(), "to make events") for _ in range(2)]
        self.handle = int(self._stream)

    def synchronize(self) -> None:
        self._check(self._runtime.cudaStreamSynchronize(self._stream))

    def time_ms(self, work: Callable[[], None]) -> float:
        runtime, (begin, end) = self._runtime, self._events
        self._check(runtime.cudaEventRecord(begin, self._stream))
        work()
        self._check(runtime.cudaEventRecord(end, self._stream))
        while (answer := runtime.cudaEventQuery(end))[0] == runtime.cudaError_t.cudaErrorNotReady:
            pass
        self._check(answer)
        return float(self._check(runtime.cudaEventElapsedTime(begin, end)))

    def close(self) -> None:
        for event in self._events:
            self._runtime.cudaEventDestroy(event)
        self._runtime.cudaStreamDestroy(self._stream)

    def _check(self, answer: Any, required: str = "to finish its work") -> Any:
        return _checked(self._runtime, answer, required)


def _checked(runtime: Any, answer: Any, required: str = "") -> Any:
    """The value that a cuda-bindings call returned; raises its error."""
    number, *values = answer
    if number != runtime.cudaError_t.cudaSuccess:
        _, text = runtime.cudaGetErrorString(number)
        found = f"{text.decode()} (error {int(number)})"
        raise EngineError(f"CUDA must be able {required}", found, _RUN_REMEDY)
    return values[0] if values else None


CUDA_PACKAGES: dict[str, Callable[[], Cuda]] = {"pycuda": PyCuda, "cuda-bindings": CudaBindings}
"""In the order in which they are tried."""


def open_cuda(package: str | None = None) -> Cuda:
    """Open the GPU through pycuda or, where that is missing or broken, cuda-bindings.

    Args:
        package: A key of `CUDA_PACKAGES`; only this package is used.

    Raises:
        RuntimeMissingError: If neither package is installed.
        DeviceError: If there is no driver or no GPU.
    """
    if package is not None:
        return CUDA_PACKAGES[package]()
    errors: list[DeviceError] = []
    for make in CUDA_PACKAGES.values():
        try:
            return make()
        except DeviceError as error:
            errors.append(error)
    found = "; ".join(error.found for error in errors if error.required == _GPU)
    if found:
        raise DeviceError(_GPU, found, NO_GPU_REMEDY)
    raise RuntimeMissingError(
        "a package for GPU memory",
        "; ".join(error.found for error in errors),
        "Install one: pip install cuda-bindings, or pip install pycuda (which is compiled on "
        "installation and needs the CUDA toolkit).",
    )


def _missing(package: str, error: ImportError) -> RuntimeMissingError:
    return RuntimeMissingError(
        f"the package {package}", str(error), f"Install it: pip install {package}"
    )
