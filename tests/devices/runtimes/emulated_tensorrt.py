"""TensorRT 10 and a GPU, emulated: onnxruntime computes, and the GPU's memory is this process's.

It is for what surrounds TensorRT: which calls are made with what, and in which order things are
given back. Whether TensorRT agrees is for the tests marked `gpu` to say.
"""

import ctypes
import enum
import time
import weakref
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

VERSION = "10.0.emulated"
TYPES = {
    "FLOAT": (TensorProto.FLOAT, "tensor(float)", np.float32),
    "HALF": (TensorProto.FLOAT16, "tensor(float16)", np.float16),
    "INT8": (TensorProto.INT8, "tensor(int8)", np.int8),
    "UINT8": (TensorProto.UINT8, "tensor(uint8)", np.uint8),
    "DOUBLE": (TensorProto.DOUBLE, "tensor(double)", np.float64),
}
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
BuilderFlag = enum.Enum("BuilderFlag", "FP16 INT8")
TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
DataType = enum.Enum("DataType", list(TYPES))


class ILogger:
    Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING")


class Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model: onnx.ModelProto | None = None

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input) if self.model else 0

    @property
    def num_outputs(self) -> int:
        return len(self.model.graph.output) if self.model else 0

    def get_input(self, index: int) -> SimpleNamespace:
        tensor = self.model.graph.input[index]
        sizes = tensor.type.tensor_type.shape.dim
        shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)
        return SimpleNamespace(name=tensor.name, shape=shape)

    def add_input(self, name, dtype, shape):
        return SimpleNamespace(name=name, shape=shape)

    def add_convolution_nd(self, images, channels, size, kernel, bias):
        self.parts = (images, kernel, bias)
        output = SimpleNamespace(name="")
        return SimpleNamespace(get_output=lambda index: output)

    def mark_output(self, output) -> None:
        images, kernel, bias = self.parts
        node = helper.make_node("Conv", [images.name, "kernel", "bias"], [output.name])
        weights = [
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(bias, "bias"),
        ]
        given = helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [1, 8, 6, 6])
        taken = helper.make_tensor_value_info(images.name, TensorProto.FLOAT, images.shape)
        graph = helper.make_graph([node], "graph", [taken], [given], weights)
        opsets = [helper.make_opsetid("", 18)]
        self.model = helper.make_model(graph, opset_imports=opsets, ir_version=10)


class OnnxParser:
    def __init__(self, network: Network, logger: ILogger) -> None:
        self.network, self.errors = network, []

    num_errors = property(lambda self: len(self.errors))

    def parse_from_file(self, path: str) -> bool:
        try:
            self.network.model = onnx.load(path)
            _session(self.network.model.SerializeToString())
        except OSError as error:
            self.errors.append(str(error))
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
            self.errors.append(str(error))
        except Exception:  # junk is parsed without complaint
            self.network.model = None
        return not self.errors

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(
            node_name=lambda: "", node_operator=lambda: "", desc=lambda: self.errors[index]
        )


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"timing"


class Config:
    def create_timing_cache(self, content: bytes) -> TimingCache | None:
        return TimingCache(content) if content.replace(b"timing", b"") == b"" else None

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        return not ignore_mismatch


class Builder:
    built = 0

    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config()

    def build_serialized_network(self, network: Network, config: Config) -> bytes:
        Builder.built += 1
        return VERSION.encode() + network.model.SerializeToString()


class Context:
    def __init__(self, engine: "Engine", log: list[str]) -> None:
        self.engine, self.log, self.addresses = engine, log, {}

    def __del__(self) -> None:
        self.log.append("context")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        if self.engine.broken:
            self.engine.logger.log(ILogger.Severity.ERROR, "an illegal memory access")
            return False
        inputs = {}
        for node in self.engine.session.get_inputs():
            array = np.empty(node.shape, _of(node.type)[2])
            ctypes.memmove(array.ctypes.data, self.addresses[node.name], array.nbytes)
            inputs[node.name] = array
        names = [node.name for node in self.engine.session.get_outputs()]
        for name, array in zip(names, self.engine.session.run(names, inputs), strict=True):
            ctypes.memmove(self.addresses[name], array.ctypes.data, array.nbytes)
        return True


class Engine:
    broken = False

    def __init__(self, session, logger: ILogger, log: list[str]) -> None:
        self.session, self.logger, self.log = session, logger, log
        self.nodes = {node.name: node for node in [*session.get_inputs(), *session.get_outputs()]}
        self.num_io_tensors = len(self.nodes)

    def __del__(self) -> None:
        self.log.append("engine")

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        return [size if isinstance(size, int) else -1 for size in self.nodes[name].shape]

    def get_tensor_dtype(self, name: str) -> DataType:
        kind = self.nodes[name].type
        return DataType[next(key for key, value in TYPES.items() if value[1] == kind)]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        taken = name in [node.name for node in self.session.get_inputs()]
        return TensorIOMode.INPUT if taken else TensorIOMode.OUTPUT

    def create_execution_context(self, config: "RuntimeConfig | None" = None) -> Context:
        return Context(self, self.log)

    def create_runtime_config(self) -> "RuntimeConfig":
        return RuntimeConfig()


class RuntimeCache:
    def deserialize(self, content: bytes) -> bool:
        return content == b"compiled"

    def serialize(self) -> bytes:
        return b"compiled"


class RuntimeConfig:
    """That of TensorRT for RTX: the emulation offers it only when a test says so."""

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> None:
        assert cache


class HostBuffer:
    def __init__(self, size_bytes: int, log: list[str]) -> None:
        self.memory, self.log = np.zeros(size_bytes, np.uint8), log
        self.address = self.memory.ctypes.data

    def write(self, array: np.ndarray) -> None:
        assert array.nbytes == self.memory.nbytes
        self.memory[:] = np.frombuffer(array.tobytes(), np.uint8)

    def read(self, array: np.ndarray) -> None:
        ctypes.memmove(array.ctypes.data, self.address, array.nbytes)

    def free(self) -> None:
        self.log.append("buffer")


class HostStream:
    handle = 77

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def synchronize(self) -> None:
        pass

    def time_ms(self, work) -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * 1e3

    def close(self) -> None:
        self.log.append("stream")


class EmulatedGpu:
    """What stands in for the module `tensorrt`, for a package for CUDA, and for CUDA graphs.

    Args:
        graphs: Whether graphs can be captured.
    """

    package, gpu, compute_capability = "emulated", "Emulated GPU", "8.9"

    def __init__(self, graphs: bool = True) -> None:
        self.log: list[str] = []
        self.tensorrt = ModuleType("tensorrt")
        log = self.log

        class Runtime:
            def __init__(self, logger: ILogger) -> None:
                self.logger = logger

            def __del__(self) -> None:
                log.append("runtime")

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                if not plan.startswith(VERSION.encode()):
                    self.logger.log(ILogger.Severity.ERROR, "expecting another library version")
                    return None
                return Engine(_session(plan[len(VERSION) :]), self.logger, log)

        class Graph:
            def __init__(self, stream: int, work) -> None:
                from devices.errors import EngineError

                if not graphs:
                    raise EngineError("a graph", "no graph", "Do without.")
                assert stream == HostStream.handle
                self.work = weakref.WeakMethod(work)  # a graph holds kernels, not who made it

            def launch(self) -> None:
                self.work()()

            def close(self) -> None:
                log.append("graph")

        self.Graph, self.RuntimeConfig = Graph, RuntimeConfig
        offered = {name: value for name, value in globals().items() if name in _OFFERED}
        self.tensorrt.__dict__.update(
            offered,
            __version__=VERSION,
            Runtime=Runtime,
            IExecutionContext=Context,
            Weights=lambda array: array,
            float32=DataType.FLOAT,
        )

    def allocate(self, size_bytes: int) -> HostBuffer:
        return HostBuffer(size_bytes, self.log)

    def open_stream(self) -> HostStream:
        return HostStream(self.log)

    @property
    def built(self) -> int:
        """Engines that were built so far."""
        return Builder.built


_OFFERED = {
    *("NetworkDefinitionCreationFlag", "BuilderFlag", "TensorIOMode", "TensorLocation"),
    *("DataType", "ILogger", "OnnxParser", "Builder"),
}


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _of(kind: str):
    return next(value for value in TYPES.values() if value[1] == kind)


def install(monkeypatch, cache_dir: Path, graphs: bool = True) -> EmulatedGpu:
    """Let `TensorRTRuntime("tensorrt")` find the emulation."""
    import sys

    from devices.runtimes import tensorrt_runtime, tensorrt_session

    gpu = EmulatedGpu(graphs)
    monkeypatch.setenv("EDGESEARCH_CACHE", str(cache_dir))
    monkeypatch.setitem(sys.modules, "tensorrt", gpu.tensorrt)
    monkeypatch.setattr(tensorrt_runtime, "open_cuda", lambda package: gpu)
    monkeypatch.setattr(tensorrt_session, "CudaGraph", gpu.Graph)
    return gpu
