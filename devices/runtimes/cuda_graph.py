"""CUDA graphs, captured and launched through the driver.

pycuda has no graphs; the driver accepts the streams of both pycuda and cuda-bindings.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from typing import Any

from devices.errors import DeviceError, EngineError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_HANDLE, _HANDLE_OUT = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuStreamBeginCapture_v2": (_HANDLE, ctypes.c_int),
    "cuStreamEndCapture": (_HANDLE, _HANDLE_OUT),
    "cuGraphInstantiateWithFlags": (_HANDLE_OUT, _HANDLE, ctypes.c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuGraphDestroy": (_HANDLE,),
    "cuGetErrorString": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}
# Other threads may call functions that cannot be captured (cuda.h).
_CAPTURE_MODE_THREAD_LOCAL = 1


class CudaGraph:
    """Work on the GPU that is launched at once, however many kernels it has.

    Args:
        stream: The `CUstream` to capture from and launch into; not the default stream.
        work: Enqueues the work into the stream, where it is captured, not run.

    Raises:
        EngineError: If the work cannot be captured; errors of `work` are passed on.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._stream = stream
        self._graph, self._executable = _HANDLE(), _HANDLE()
        _call("cuStreamBeginCapture_v2", stream, _CAPTURE_MODE_THREAD_LOCAL)
        try:
            work()
        except BaseException:
            _driver().cuStreamEndCapture(stream, ctypes.byref(self._graph))
            self.close()
            raise
        _call("cuStreamEndCapture", stream, ctypes.byref(self._graph))
        try:
            executable = ctypes.byref(self._executable)
            _call("cuGraphInstantiateWithFlags", executable, self._graph, 0)
        except EngineError:
            self.close()
            raise

    def launch(self) -> None:
        """Enqueue the graph into its stream without waiting.

        Raises:
            EngineError: If the driver fails.
        """
        _call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Release the graph. Closing again does nothing."""
        if self._executable:
            _driver().cuGraphExecDestroy(self._executable)
        if self._graph:
            _driver().cuGraphDestroy(self._graph)
        self._executable, self._graph = _HANDLE(), _HANDLE()


@functools.lru_cache(maxsize=None)
def _driver() -> Any:
    try:
        driver = ctypes.CDLL(_LIBRARY)
        for name, arguments in _FUNCTIONS.items():
            getattr(driver, name).argtypes = arguments
    except (AttributeError, OSError) as error:
        raise DeviceError(
            f"the NVIDIA driver's library {_LIBRARY}, of CUDA 11.4 or newer",
            str(error),
            "Install the driver of the GPU.",
        ) from error
    return driver


def _call(name: str, *arguments: Any) -> None:
    result = getattr(_driver(), name)(*arguments)
    if result != 0:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(result, ctypes.byref(text))
        found = (text.value or b"an unknown error").decode()
        raise EngineError(
            f"the driver must complete {name} for a CUDA graph",
            f"{found} (error {result})",
            "Export the network with fixed shapes and without control flow.",
        )
