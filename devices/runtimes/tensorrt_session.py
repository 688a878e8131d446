"""A TensorRT engine on the GPU: buffers, CUDA graph, timing by events."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.errors import EngineError, FileError
from devices.files import replacing
from devices.runtimes.checks import check_inputs, draw_inputs
from devices.runtimes.cuda_graph import CudaGraph
from devices.runtimes.cuda_memory import Cuda, DeviceBuffer, Stream
from devices.runtimes.protocol import Session
from devices.runtimes.tensorrt_bindings import Features, collected_errors

# By TensorRT's names: TensorRT's own mapping to numpy types breaks with some numpy versions.
_TYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


def deserialize(trt: Any, plan: bytes) -> tuple[Any, Any]:
    """Load an engine from the content of its file.

    Returns:
        The runtime and its engine, which must be released first.

    Raises:
        EngineError: If it is damaged, or for another version or GPU.
    """
    required = f"an engine for TensorRT {trt.__version__} and the GPU of this machine"
    remedy = "Build it here: load the .onnx file instead."
    with collected_errors(trt) as (logger, messages):
        try:
            runtime = trt.Runtime(logger)
            engine = runtime.deserialize_cuda_engine(plan)
        except (RuntimeError, TypeError) as error:
            raise EngineError(required, "; ".join(messages) or str(error), remedy) from error
    if engine is None:
        raise EngineError(required, "; ".join(messages) or "no engine and no reason", remedy)
    return runtime, engine


class TensorRTSession(Session):
    """A loaded engine, as `deserialize` returns it, with GPU memory for its inputs and outputs.

    Runs are launched as one CUDA graph if `with_graph`. `runtime_cache` is the file that caches
    the code TensorRT for RTX compiles while loading; `path` appears in messages.

    Raises:
        EngineError: If shapes or types are unsupported, or GPU memory does not suffice.
    """

    def __init__(
        self,
        trt: Any,
        loaded: tuple[Any, Any],
        cuda: Cuda,
        path: Path,
        with_graph: bool,
        runtime_cache: Path | None = None,
    ) -> None:
        self._trt, self._path = trt, path
        engine = loaded[1]
        self._buffers: dict[str, DeviceBuffer] = {}
        self._outputs: dict[str, NDArray[Any]] = {}
        self.inputs: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, np.dtype[Any]] = {}
        self._describe(engine)
        # Released in reverse order: graph, context, engine, buffers, stream.
        with contextlib.ExitStack() as held:
            self._stream: Stream = cuda.open_stream()
            held.callback(self._stream.close)
            made, keep_compiled = _make_context(trt, engine, runtime_cache)
            self._allocate(made[-1], cuda, held)
            # The only references to these objects: `close` empties the list from its end.
            self._objects = [*loaded, *made]
            del made
            held.callback(_empty, self._objects)
            self._arrays = draw_inputs(self.inputs, self._types)
            self._write(self._arrays)
            self._enqueue()  # the first run allocates and compiles, which cannot be captured
            self._stream.synchronize()
            keep_compiled()
            self._graph = self._capture(held) if with_graph else None
            # Releases everything when the session is closed or garbage-collected.
            self._closing = weakref.finalize(self, held.pop_all().close)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once, copies to and from the GPU included; see `Session.run`."""
        self._check_open()
        check_inputs(self.inputs, self._types, inputs)
        self._write(inputs)
        self._launch()
        self._stream.synchronize()
        found = {name: np.empty_like(array) for name, array in self._outputs.items()}
        for name, array in found.items():
            self._buffers[name].read(array)
        return found

    def timings_ms(self) -> Iterator[float]:
        """Time each run on the GPU, without copies; see `Session.timings_ms`."""
        self._check_open()
        self._write(self._arrays)
        self._stream.synchronize()
        while True:
            yield self._stream.time_ms(self._launch)

    def close(self) -> None:
        """See `Session.close`."""
        self._closing()

    def _describe(self, engine: Any) -> None:
        """Record names, shapes and types of inputs and outputs."""
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
            on_gpu = engine.get_tensor_location(name) == self._trt.TensorLocation.DEVICE
            if any(size < 0 for size in shape) or kind not in _TYPES or not on_gpu:
                raise EngineError(
                    f"all inputs and outputs of {self._path} must have fixed shapes, be on the "
                    f"GPU and of one of the types {', '.join(_TYPES)}",
                    f"{name!r} of shape {shape} and type {kind}",
                    "Export the model with fixed shapes and another type.",
                )
            if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
                self.inputs[name], self._types[name] = shape, np.dtype(_TYPES[kind])
            else:
                self._outputs[name] = np.empty(shape, _TYPES[kind])

    def _allocate(self, context: Any, cuda: Cuda, held: contextlib.ExitStack) -> None:
        """Allocate memory for inputs and outputs."""
        sizes = {name: array.nbytes for name, array in self._outputs.items()}
        for name, shape in self.inputs.items():
            sizes[name] = int(np.prod(shape, dtype=np.int64)) * self._types[name].itemsize
        for name, size_bytes in sizes.items():
            buffer = cuda.allocate(max(size_bytes, 1))
            held.callback(buffer.free)
            self._buffers[name] = buffer
            context.set_tensor_address(name, buffer.address)

    def _write(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        for name in self.inputs:
            self._buffers[name].write(inputs[name])

    def _launch(self) -> None:
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch()

    def _enqueue(self) -> None:
        with collected_errors(self._trt) as (_, messages):
            if not self._objects[-1].execute_async_v3(self._stream.handle):
                raise self._failed("; ".join(messages) or "no reason given")

    def _capture(self, held: contextlib.ExitStack) -> CudaGraph:
        handle, context = self._stream.handle, self._objects[-1]
        if Features.of(self._trt).capturable and not context.is_stream_capturable(handle):
            raise self._failed("it cannot be captured in a CUDA graph")
        graph = CudaGraph(handle, self._enqueue)
        held.callback(graph.close)
        return graph

    def _check_open(self) -> None:
        if not self._closing.alive:
            raise EngineError(
                "an open session", f"the session of {self._path} is closed", "Load it again."
            )

    def _failed(self, found: str) -> EngineError:
        return EngineError(
            f"TensorRT must be able to run {self._path}", found, "Export the model again."
        )


def _make_context(
    trt: Any, engine: Any, runtime_cache: Path | None
) -> tuple[list[Any], Callable[[], None]]:
    """A context after all objects that must outlive it, and a function that saves its cache."""
    if runtime_cache is None or not Features.of(trt).runtime_cache:
        return [_made(engine.create_execution_context())], lambda: None
    config = engine.create_runtime_config()
    cache = config.create_runtime_cache()
    known = False
    with contextlib.suppress(OSError):
        known = cache.deserialize(runtime_cache.read_bytes())
    config.set_runtime_cache(cache)
    context = _made(engine.create_execution_context(config))

    def keep() -> None:
        if not known:
            # If the cache cannot be written, loading compiles each time.
            with contextlib.suppress(FileError), replacing(runtime_cache, shared=True) as partial:
                partial.write_bytes(cache.serialize())

    return [config, cache, context], keep


def _made(context: Any) -> Any:
    if context is None:
        raise EngineError(
            "GPU memory for the activations of an engine", "too little", "Free some of it."
        )
    return context


def _empty(objects: list[Any]) -> None:
    while objects:
        objects.pop()
