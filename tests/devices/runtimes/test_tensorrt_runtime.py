"""TensorRT beyond what every runtime promises: here, on an emulated GPU, and without one."""

import shutil
import struct
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from devices import DeviceSpec, OnnxRuntime, Runtime, TensorRTRuntime, open_runtime, read_gpu
from devices.errors import DeviceError, EngineError, FileError
from devices.runtimes.tensorrt_bindings import Features
from devices.runtimes.tensorrt_builder import TensorRTBuilder

ON_GPU = [
    pytest.param((family, package), marks=pytest.mark.gpu)
    for family in ("tensorrt", "tensorrt-rtx")
    for package in ("pycuda", "cuda-bindings")
]
TYPES = {
    np.float32: TensorProto.FLOAT,
    np.float16: TensorProto.FLOAT16,
}


@pytest.fixture(params=[("tensorrt", "emulated"), *ON_GPU])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """TensorRT on the emulated GPU, and on the one here."""
    family, package = request.param
    if package == "emulated":
        request.getfixturevalue("emulate_gpu")()
        return TensorRTRuntime(family)
    return request.getfixturevalue("tensorrt_here")(family, package)


def test_its_output_is_onnxruntimes(runtime: Runtime, convolution: Path) -> None:
    random = np.random.default_rng(1)
    expected, session = OnnxRuntime().load(convolution), runtime.load(convolution)
    assert session.inputs == {"images": (1, 16, 8, 8)}
    for _ in range(2):
        inputs = {"images": random.standard_normal((1, 16, 8, 8), np.float32)}
        found = session.run(inputs)
        assert session.time_ms(1)[0] > 0  # on inputs of its own
        # TensorRT rounds the factors of products to ten bits (TF32).
        np.testing.assert_allclose(
            found["features"], expected.run(inputs)["features"], atol=1e-2, rtol=1e-2
        )
    session.close()


def test_a_full_disk_is_no_fault_of_the_model(runtime: Runtime, convolution: Path) -> None:
    # An EngineError would be recorded as a block that the runtime cannot run.
    folder = runtime._cache.folder  # type: ignore[attr-defined]
    shutil.rmtree(folder)
    folder.write_bytes(b"")
    with pytest.raises(FileError, match="to keep engines in .*EDGESEARCH_CACHE"):
        runtime.load(convolution)


@pytest.mark.parametrize("dtype", TYPES)
def test_types_are_the_onnx_files(
    dtype: type[np.generic], runtime: Runtime, write_relu: Callable[..., Path]
) -> None:
    session = runtime.load(write_relu("typed.onnx", [2, 4], TYPES[dtype]))
    values = np.arange(-4, 4).reshape(2, 4).astype(dtype)
    found = session.run({"images": values[:, ::-1]})["features"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.maximum(values[:, ::-1], 0))
    assert len(session.time_ms(2)) == 2
    wrong = np.zeros((2, 4), np.float64)
    with pytest.raises(EngineError, match=f"of type {np.dtype(dtype)}; found: float64"):
        session.run({"images": wrong})


def test_whole_numbers_are_taken_as_well_and_other_types_refused(
    emulate_gpu: Callable[..., Any], write_relu: Callable[..., Path]
) -> None:
    emulate_gpu()
    runtime = TensorRTRuntime("tensorrt")
    session = runtime.load(write_relu("n.onnx", [1, 4], TensorProto.INT8))
    found = session.run({"images": np.array([[-128, -1, 0, 127]], np.int8)})["features"]
    assert found.dtype == np.int8
    assert found.tolist() == [[0, 0, 0, 127]]
    assert len(session.time_ms(2)) == 2
    with pytest.raises(EngineError, match="one of the types FLOAT, .*of shape .* and type DOUBLE"):
        runtime.load(write_relu("d.onnx", [1, 4], TensorProto.DOUBLE))


def test_settings_say_how_it_is_run(runtime: Runtime) -> None:
    assert runtime.settings["cuda_graph"] is True
    assert runtime.settings["timed_by"] == "events on the GPU"
    assert runtime.settings["cuda_package"] in ("pycuda", "cuda-bindings", "emulated")
    assert runtime.settings == runtime.settings


def test_other_files_are_refused(runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"loads .onnx and .engine files; found: .*a\.ort"):
        runtime.load(tmp_path / "a.ort")
    (tmp_path / "a.engine").write_bytes(b"no engine at all" * 10)
    with pytest.raises(EngineError, match="engine"):
        runtime.load(tmp_path / "a.engine")


@pytest.mark.parametrize("fixture", ["unknown_operator", "junk"])
def test_what_cannot_be_built_is_an_error_of_the_engine(
    fixture: str, runtime: Runtime, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(fixture)
    with pytest.raises(EngineError, match=f"parse .*{source.name}"):
        runtime.load(source)


def engines(folder: Path) -> set[Path]:
    return set(folder.rglob("*.engine"))


def test_an_engine_is_built_once_unless_it_is_damaged(
    runtime: Runtime, convolution: Path, write_relu: Callable[..., Path], tmp_path: Path
) -> None:
    before = engines(tmp_path / "cache")
    runtime.load(convolution).close()
    (engine,) = engines(tmp_path / "cache") - before
    made = engine.stat().st_mtime_ns
    runtime.load(convolution).close()
    assert engine.stat().st_mtime_ns == made
    runtime.load(write_relu("another.onnx", [1, 4])).close()
    assert len(engines(tmp_path / "cache") - before) == 2
    engine.write_bytes(engine.read_bytes()[:-1])
    session = runtime.load(convolution)
    assert session.run({"images": np.ones((1, 16, 8, 8), np.float32)})["features"].any()


def test_a_foreign_engine_in_the_cache_is_built_again(
    emulate_gpu: Callable[..., Any], convolution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = emulate_gpu()
    runtime = TensorRTRuntime("tensorrt")
    runtime.load(convolution).close()
    built = gpu.built
    plans = []

    def foreign(self: Any, plan: bytes) -> None:
        plans.append(plan)
        return original(self, plan if len(plans) > 1 else b"of another driver")

    original = gpu.tensorrt.Runtime.deserialize_cuda_engine
    monkeypatch.setattr(gpu.tensorrt.Runtime, "deserialize_cuda_engine", foreign)
    assert runtime.load(convolution).time_ms(1)
    assert (len(plans), gpu.built) == (2, built + 1)


@pytest.mark.parametrize("suffix", [".onnx", ".engine"])
def test_what_is_compiled_on_loading_is_kept(
    suffix: str, emulate_gpu: Callable[..., Any], convolution: Path, tmp_path: Path
) -> None:
    gpu = emulate_gpu()
    gpu.tensorrt.IRuntimeConfig = gpu.RuntimeConfig
    runtime = TensorRTRuntime("tensorrt")
    path = {".onnx": convolution, ".engine": tmp_path / "carried.engine"}[suffix]
    TensorRTBuilder("tensorrt").build(convolution, tmp_path / "carried.engine")
    trial = set((tmp_path / "cache").rglob("*.compiled"))
    assert len(trial) == 1
    runtime.load(path).close()
    (kept,) = set((tmp_path / "cache").rglob("*.compiled")) - trial
    assert kept.read_bytes() == b"compiled"
    made = kept.stat().st_mtime_ns
    assert runtime.load(path).time_ms(1)
    assert kept.stat().st_mtime_ns == made
    kept.write_bytes(b"by another driver")
    assert runtime.load(path).time_ms(1)
    assert kept.read_bytes() == b"compiled"
    # Where nothing can be kept, engines are loaded all the same.
    kept.unlink()
    kept.mkdir()  # refuses a file of its name, for an administrator as well
    assert runtime.load(path).time_ms(1)
    assert kept.is_dir()


def test_another_gpu_or_version_has_engines_of_its_own(
    emulate_gpu: Callable[..., Any], convolution: Path
) -> None:
    gpu = emulate_gpu()
    TensorRTRuntime("tensorrt").load(convolution).close()
    built = gpu.built
    TensorRTRuntime("tensorrt").load(convolution).close()
    assert gpu.built == built
    gpu.gpu = "Another GPU"
    TensorRTRuntime("tensorrt").load(convolution).close()
    assert gpu.built == built + 2  # the trial network as well


def test_things_are_given_back_in_order(emulate_gpu: Callable[..., Any], convolution: Path) -> None:
    gpu = emulate_gpu()
    runtime = TensorRTRuntime("tensorrt")
    expected = ["graph", "context", "engine", "runtime", "buffer", "buffer", "stream"]
    for end in ("close", "forget"):
        session = runtime.load(convolution)
        gpu.log.clear()
        if end == "close":
            session.close()
            session.close()
        else:
            gone = weakref.ref(session)
            del session
            assert gone() is None
        assert gpu.log == expected


def test_a_failed_start_gives_everything_back(
    emulate_gpu: Callable[..., Any], convolution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = emulate_gpu()
    runtime = TensorRTRuntime("tensorrt")
    gpu.log.clear()
    monkeypatch.setattr("devices.runtimes.tensorrt_session.CudaGraph", None)
    with pytest.raises(TypeError):
        runtime.load(convolution)
    assert sorted(gpu.log) == ["buffer", "buffer", "context", "engine", "runtime", "stream"]


def test_a_run_that_fails_says_why(emulate_gpu: Callable[..., Any], convolution: Path) -> None:
    emulate_gpu(graphs=False)
    runtime = TensorRTRuntime("tensorrt")
    assert runtime.settings["cuda_graph"] is False
    session: Any = runtime.load(convolution)
    session._objects[1].broken = True
    with pytest.raises(EngineError, match=r"run .*convolution.onnx; found: an illegal memory acc"):
        session.run({"images": np.zeros((1, 16, 8, 8), np.float32)})
    with pytest.raises(EngineError, match="an illegal memory access"):
        session.time_ms(3)


def test_one_that_cannot_be_captured_where_others_can_is_refused(
    emulate_gpu: Callable[..., Any], convolution: Path
) -> None:
    gpu = emulate_gpu()
    runtime = TensorRTRuntime("tensorrt")
    gpu.tensorrt.IExecutionContext.is_stream_capturable = lambda self, stream: False
    assert Features.of(gpu.tensorrt).capturable
    try:
        with pytest.raises(EngineError, match="it cannot be captured in a CUDA graph"):
            runtime.load(convolution)
        assert TensorRTRuntime("tensorrt").settings["cuda_graph"] is False
    finally:
        del gpu.tensorrt.IExecutionContext.is_stream_capturable


def test_an_engine_of_another_version_is_refused(
    emulate_gpu: Callable[..., Any], tmp_path: Path
) -> None:
    emulate_gpu()
    (tmp_path / "n.engine").write_bytes(b"9.0")
    with pytest.raises(
        EngineError, match="TensorRT 10.0.emulated and the GPU .*found: expecting another library"
    ):
        TensorRTRuntime("tensorrt").load(tmp_path / "n.engine")


@pytest.mark.parametrize(
    ("version", "mask", "found"),
    [
        ([1, 6, 0, 1], 0x08, "for 1.6.0.1 and SM89"),
        ([10, 0, 0, 0], 0x10, "for 10.0.0.0 and SM120"),
    ],
)
def test_an_rtx_engine_for_something_else_is_refused(
    version: list[int],
    mask: int,
    found: str,
    emulate_gpu: Callable[..., Any],
    tmp_path: Path,
) -> None:
    gpu = emulate_gpu()
    runtime = TensorRTRuntime("tensorrt")
    runtime.version = "10.0.0.0"
    gpu.tensorrt.ComputeCapability = object()  # the mark of TensorRT for RTX
    head = struct.pack("<4s12xQ4s4xI", b"vtrt", 64, bytes(version), mask)
    (tmp_path / "n.engine").write_bytes(head.ljust(64, b"\0"))
    with pytest.raises(
        EngineError, match=f"RTX 10.0.0.0 and SM89, which is Emulated GPU; found: .*{found}"
    ):
        runtime.load(tmp_path / "n.engine")


def test_a_gpu_that_rtx_is_not_for_is_named(
    emulate_gpu: Callable[..., Any],
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    emulate_gpu().compute_capability = "9.0"
    with pytest.raises(
        DeviceError, match=r"RTX \d.* supports: SM75, .*found: Emulated GPU \(SM90\).*local-gpu"
    ):
        TensorRTRuntime("tensorrt-rtx")


@pytest.mark.skipif(read_gpu()["gpu"] is not None, reason="this machine has an NVIDIA GPU")
def test_without_a_gpu_it_is_said_what_is_missing() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings are not installed")
    spec = DeviceSpec("rtx-pc", runtime="tensorrt-rtx", precision="fp16")
    with pytest.raises(
        DeviceError,
        match=r"an NVIDIA GPU and its driver; found: .*\(cuda-bindings\).*transport=ssh",
    ):
        open_runtime(spec)
