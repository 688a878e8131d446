"""The functions of `cuda.bindings.runtime` that are used here, on this process's memory."""

import ctypes
import time
from types import ModuleType, SimpleNamespace

from cuda.bindings import runtime as real

_FINE, _NO_MEMORY = real.cudaError_t.cudaSuccess, real.cudaError_t.cudaErrorMemoryAllocation


class EmulatedCuda:
    """Stands in for the module; counts what is left over.

    Args:
        gpus: How many there are.
    """

    def __init__(self, gpus: int = 1) -> None:
        self.left: set[str] = set()
        self._memory: dict[int, object] = {}
        self._times: dict[int, float] = {}
        self._polls = 0
        self.module = ModuleType("cuda.bindings.runtime")
        answers = {name: getattr(self, name) for name in dir(self) if name.startswith("cuda")}
        self.module.__dict__.update(
            answers,
            cudaError_t=real.cudaError_t,
            cudaMemcpyKind=real.cudaMemcpyKind,
            cudaGetErrorString=real.cudaGetErrorString,
            cudaGetDeviceCount=lambda: (_FINE, gpus),
        )

    def cudaSetDevice(self, number):
        return (_FINE,)

    def cudaGetDeviceProperties(self, number):
        return (_FINE, SimpleNamespace(name=b"Emulated GPU".ljust(256, b"\0"), major=8, minor=9))

    def cudaMalloc(self, size_bytes):
        if size_bytes > 1 << 40:
            return (_NO_MEMORY, None)
        memory = ctypes.create_string_buffer(size_bytes)
        self._memory[ctypes.addressof(memory)] = memory
        return (_FINE, ctypes.addressof(memory))

    def cudaFree(self, address):
        if address:
            del self._memory[address]
        return (_FINE,)

    def cudaMemcpy(self, target, source, size_bytes, kind):
        on_gpu = target if kind == real.cudaMemcpyKind.cudaMemcpyHostToDevice else source
        assert size_bytes == len(self._memory[on_gpu])
        ctypes.memmove(target, source, size_bytes)
        return (_FINE,)

    def cudaStreamCreate(self):
        self.left.add("stream")
        return (_FINE, real.cudaStream_t(77))

    def cudaStreamSynchronize(self, stream):
        return (_FINE,)

    def cudaStreamDestroy(self, stream):
        self.left.remove("stream")
        return (_FINE,)

    def cudaEventCreate(self):
        number = len(self._times) + 1
        self._times[number] = 0.0
        return (_FINE, real.cudaEvent_t(number))

    def cudaEventRecord(self, event, stream):
        assert int(stream) == 77
        self._times[int(event)], self._polls = time.perf_counter() * 1e3, 3
        return (_FINE,)

    def cudaEventQuery(self, event):
        self._polls -= 1
        return (_FINE if self._polls < 0 else real.cudaError_t.cudaErrorNotReady,)

    def cudaEventElapsedTime(self, begin, end):
        assert self._polls < 0, "nobody waited"
        return (_FINE, self._times[int(end)] - self._times[int(begin)])

    def cudaEventDestroy(self, event):
        del self._times[int(event)]
        return (_FINE,)

    @property
    def nothing_left(self) -> bool:
        return not (self.left or self._memory or self._times)
