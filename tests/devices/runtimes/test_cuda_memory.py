"""The GPU's memory, streams and events, through both packages."""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from devices import read_gpu
from devices.errors import DeviceError, EngineError, RuntimeMissingError
from devices.runtimes.cuda_graph import CudaGraph
from devices.runtimes.cuda_memory import (
    CUDA_PACKAGES,
    NO_GPU_REMEDY,
    Cuda,
    CudaBindings,
    _BindingsBuffer,
    _BindingsStream,
    open_cuda,
)

without_gpu = pytest.mark.skipif(
    read_gpu()["gpu"] is not None, reason="this machine has an NVIDIA GPU"
)


EMULATED = "cuda-bindings, emulated"


@pytest.fixture(
    params=[EMULATED, *(pytest.param(package, marks=pytest.mark.gpu) for package in CUDA_PACKAGES)]
)
def cuda(request: pytest.FixtureRequest) -> Cuda:
    """The GPU of this machine through each package, and one that is emulated."""
    if request.param == EMULATED:
        request.getfixturevalue("emulate_cuda")()
        return CudaBindings()
    try:
        return open_cuda(request.param)
    except DeviceError as error:
        pytest.skip(str(error))


class TestCuda:
    def test_names_the_gpu(self, cuda: Cuda) -> None:
        assert cuda.package in CUDA_PACKAGES
        assert cuda.gpu
        assert float(cuda.compute_capability) >= 5
        found = read_gpu()
        if found["compute_capability"]:
            assert (cuda.gpu, cuda.compute_capability) == (
                found["gpu"],
                found["compute_capability"],
            )

    @pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.int64])
    def test_gives_back_what_was_written(self, dtype: type[np.generic], cuda: Cuda) -> None:
        array = np.arange(60).reshape(3, 4, 5).astype(dtype).T  # not contiguous
        buffers = [cuda.allocate(array.nbytes) for _ in range(2)]
        assert buffers[0].address != buffers[1].address
        buffers[0].write(array)
        buffers[1].write(np.zeros_like(array))
        found = np.empty(array.shape, dtype)
        buffers[0].read(found)
        np.testing.assert_array_equal(found, array)
        for buffer in buffers:
            buffer.free()

    def test_too_much_memory_is_an_error_that_ends(self, cuda: Cuda) -> None:
        with pytest.raises(EngineError, match="CUDA must be able to take .* of the GPU's memory"):
            cuda.allocate(1 << 50)
        cuda.allocate(16).free()

    def test_times_work_on_the_gpu(self, cuda: Cuda) -> None:
        stream = cuda.open_stream()
        assert stream.handle
        stream.synchronize()
        # The first event is there at once, the second after what happens between.
        for seconds in (0.0, 0.02):
            begun = time.perf_counter()
            found_ms = stream.time_ms(lambda s=seconds: time.sleep(s))
            assert 1e3 * seconds <= found_ms <= 1e3 * (time.perf_counter() - begun)
        stream.close()

    def test_what_fails_between_the_events_is_passed_on(self, cuda: Cuda) -> None:
        def fail() -> None:
            raise EngineError("work", "none", "Work.")

        stream = cuda.open_stream()
        with pytest.raises(EngineError, match="work; found: none"):
            stream.time_ms(fail)
        assert stream.time_ms(lambda: None) >= 0
        stream.close()

    def test_its_streams_take_graphs(self, cuda: Cuda) -> None:
        if cuda.gpu == "Emulated GPU":
            pytest.skip("graphs are the driver's, which is not emulated here")
        stream = cuda.open_stream()
        graph = CudaGraph(stream.handle, lambda: None)
        assert stream.time_ms(graph.launch) >= 0
        graph.close()
        graph.close()
        stream.close()

    def test_both_packages_can_be_in_one_process(self, cuda: Cuda) -> None:
        others = []
        for package in CUDA_PACKAGES:
            try:
                others.append(open_cuda(package))
            except DeviceError:
                continue
        array = np.arange(4.0)
        for one in (cuda, *others):
            buffer = one.allocate(array.nbytes)
            buffer.write(array)
            found = np.empty_like(array)
            buffer.read(found)
            np.testing.assert_array_equal(found, array)
            buffer.free()


def test_all_is_given_back(emulate_cuda: Callable[..., Any]) -> None:
    emulated = emulate_cuda()
    cuda = CudaBindings()
    buffer, stream = cuda.allocate(16), cuda.open_stream()
    assert not emulated.nothing_left
    buffer.free()
    stream.close()
    assert emulated.nothing_left


def test_a_driver_without_a_gpu_is_not_enough(emulate_cuda: Callable[..., Any]) -> None:
    emulate_cuda(gpus=0)
    with pytest.raises(DeviceError, match=r"GPU and its driver; found: no GPU \(cuda-bindings\)"):
        CudaBindings()


@without_gpu
def test_every_call_is_one_that_cuda_bindings_take() -> None:
    # Without a driver each answers with an error; wrong arguments would raise something else.
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="they are not installed")
    buffer: Any = object.__new__(_BindingsBuffer)
    buffer._runtime, buffer.address = runtime, 4096
    stream: Any = object.__new__(_BindingsStream)
    stream._runtime, stream._stream = runtime, runtime.cudaStream_t(77)
    stream._events = [runtime.cudaEvent_t(1), runtime.cudaEvent_t(2)]
    calls: list[Callable[[], Any]] = [
        lambda: _BindingsBuffer(runtime, 16),
        lambda: _BindingsStream(runtime),
        lambda: buffer.write(np.zeros(4)),
        lambda: buffer.read(np.zeros(4)),
        stream.synchronize,
        lambda: stream.time_ms(lambda: None),
    ]
    for call in calls:
        with pytest.raises(EngineError, match=r"CUDA must be able to .*\(error \d+\)"):
            call()
    assert runtime.cudaEventElapsedTime(*stream._events)[0] != runtime.cudaError_t.cudaSuccess
    buffer.free()
    stream.close()


def test_without_either_package_both_commands_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pycuda", "cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        RuntimeMissingError,
        match="a package for GPU memory.*pip install cuda-bindings, or pip install pycuda",
    ):
        open_cuda()


@pytest.mark.parametrize("package", CUDA_PACKAGES)
def test_a_package_that_is_asked_for_must_be_there(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pycuda", "cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        RuntimeMissingError, match=f"the package {package}; .*pip install {package}"
    ):
        open_cuda(package)


@pytest.mark.parametrize(
    ("pycuda", "used"),
    [
        ("works", "pycuda"),
        (RuntimeMissingError("pycuda", "none", "Install it."), "cuda-bindings"),
        (DeviceError("a driver", "built for another one", "Build it again."), "cuda-bindings"),
    ],
)
def test_the_first_package_that_works_is_used(
    pycuda: str | DeviceError, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first() -> str:
        if isinstance(pycuda, DeviceError):
            raise pycuda
        return "pycuda"

    makers: dict[str, Callable[[], str]] = {
        "pycuda": first,
        "cuda-bindings": lambda: "cuda-bindings",
    }
    for name, maker in makers.items():
        monkeypatch.setitem(CUDA_PACKAGES, name, maker)
    assert open_cuda() == used


@without_gpu
def test_without_a_driver_cuda_bindings_say_so() -> None:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings are not installed")
    with pytest.raises(
        DeviceError, match=r"an NVIDIA GPU and its driver; found: .*\(error \d+\) \(cuda-bindings\)"
    ):
        CudaBindings()
    with pytest.raises(DeviceError, match="an NVIDIA GPU and its driver; .*nvidia-smi must list"):
        open_cuda()


def test_what_to_do_without_a_gpu_is_for_every_command() -> None:
    assert "the same command there" in NO_GPU_REMEDY
    assert "with device.transport=ssh device.host=NAME (`bench`: transport=ssh" in NO_GPU_REMEDY
    assert "CONFIG" not in NO_GPU_REMEDY


@without_gpu
def test_without_a_driver_pycuda_says_so() -> None:
    pytest.importorskip("pycuda", reason="pycuda is not installed")
    with pytest.raises(DeviceError, match=r"an NVIDIA GPU and its driver; found: .*\(pycuda\)"):
        open_cuda("pycuda")
