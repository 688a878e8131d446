"""What every runtime and every builder promises."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import devices
from devices import (
    DeviceSpec,
    EngineBuilder,
    OnnxRuntime,
    OrtBuilder,
    ReplayRuntime,
    Runtime,
    Session,
    TensorRTBuilder,
    TensorRTRuntime,
    installed_version,
)
from devices.errors import CompileError, EngineError, FileError
from devices.runtimes.known_runtimes import RUNTIMES
from devices.runtimes.tensorrt_bindings import FAMILIES

HERE: dict[str, Callable[[], Runtime]] = {
    "onnxruntime": lambda: OnnxRuntime(threads=1),
    "onnxruntime with 2 threads": lambda: OnnxRuntime(threads=2),
    "replay": lambda: ReplayRuntime({"convolution": [1.0, 2.0, 3.0]}),
}
EMULATED = {"tensorrt, emulated": True, "tensorrt, emulated without graphs": False}
ON_GPU = {
    f"{family} through {package}": (family, package)
    for family in ("tensorrt", "tensorrt-rtx")
    for package in ("pycuda", "cuda-bindings")
}


@pytest.fixture(
    params=[*HERE, *EMULATED, *(pytest.param(name, marks=pytest.mark.gpu) for name in ON_GPU)]
)
def make(request: pytest.FixtureRequest) -> Callable[[], Runtime]:
    """Makes one of the runtimes."""
    if request.param in ON_GPU:
        open_here = request.getfixturevalue("tensorrt_here")
        return lambda: open_here(*ON_GPU[request.param])
    if request.param in EMULATED:
        request.getfixturevalue("emulate_gpu")(EMULATED[request.param])
        return lambda: TensorRTRuntime("tensorrt")
    return HERE[request.param]


@pytest.mark.parametrize("name", RUNTIMES)
class TestRuntimeRecord:
    def test_is_listed_under_its_name(self, name: str) -> None:
        assert RUNTIMES[name].name == name

    def test_says_how_to_install_it(self, name: str) -> None:
        record = RUNTIMES[name]
        assert record.packages
        assert "pip install " in record.install

    def test_says_what_is_installed(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        version = installed_version(name)
        assert version is None or version[0].isdigit()
        for module in ("onnxruntime", *(m for f in FAMILIES.values() for m in f.modules)):
            monkeypatch.setitem(sys.modules, module, None)
        assert installed_version(name) is None

    def test_loads_files_of_its_endings(self, name: str, tmp_path: Path) -> None:
        record = RUNTIMES[name]
        assert {".onnx", record.carried} <= set(record.endings)
        for ending in (*record.endings, ".txt"):
            header = struct.pack("<4s12xQ4s4xI", b"vtrt", 36, bytes(4), 8) * (
                record.carried == ending
            )
            path = tmp_path / f"network{ending}"
            path.write_bytes(header)
            assert record.loads(path) == (ending != ".txt")

    def test_devices_with_each_provider_have_a_number_format(self, name: str) -> None:
        for provider in (None, *RUNTIMES[name].providers):
            device = DeviceSpec("board", name, provider=provider)
            assert device.number_format() == "fp32"
            assert replace(device, precision="int8").number_format()
            assert RUNTIMES[name].computes_on(provider) in ("processor", "nvidia", "other")


def random_inputs(session: Session) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in session.inputs.items()
    }


class TestRuntime:
    def test_has_a_name_and_a_version(self, make: Callable[[], Runtime]) -> None:
        runtime = make()
        assert runtime.name
        assert runtime.version

    def test_runs(self, make: Callable[[], Runtime], convolution: Path) -> None:
        session = make().load(convolution)
        first = session.run(random_inputs(session))
        again = session.run(random_inputs(session))
        assert first
        for name, array in first.items():
            np.testing.assert_array_equal(array, again[name])

    def test_times_each_run(self, make: Callable[[], Runtime], convolution: Path) -> None:
        session = make().load(convolution)
        samples_ms = session.time_ms(5)
        assert len(samples_ms) == 5
        assert all(isinstance(sample, float) and sample > 0 for sample in samples_ms)
        assert session.time_ms(0) == []

    def test_sessions_are_independent(self, make: Callable[[], Runtime], convolution: Path) -> None:
        runtime = make()
        first, second = runtime.load(convolution), runtime.load(convolution)
        first.close()
        assert second.run(random_inputs(second))

    def test_a_missing_input_is_named(self, make: Callable[[], Runtime], convolution: Path) -> None:
        session = make().load(convolution)
        with pytest.raises(EngineError, match=r"needs input 'images'.*found: inputs \['pictures'"):
            session.run({"pictures": np.zeros(1, np.float32)})

    def test_a_wrong_shape_is_named(self, make: Callable[[], Runtime], convolution: Path) -> None:
        session = make().load(convolution)
        with pytest.raises(EngineError, match=r"input 'images' must have shape .*\(9, 9\)"):
            session.run({"images": np.zeros((9, 9), np.float32)})

    def test_an_unknown_input_is_named(
        self, make: Callable[[], Runtime], convolution: Path
    ) -> None:
        session = make().load(convolution)
        inputs = {**random_inputs(session), "mask": np.zeros(1, np.float32)}
        with pytest.raises(EngineError, match="'mask' as well"):
            session.run(inputs)

    def test_a_closed_session_says_so(self, make: Callable[[], Runtime], convolution: Path) -> None:
        session = make().load(convolution)
        inputs = random_inputs(session)
        session.close()
        session.close()
        with pytest.raises(EngineError, match="an open session"):
            session.run(inputs)
        with pytest.raises(EngineError, match="an open session"):
            session.time_ms(1)

    def test_what_is_not_there_is_not_loaded(
        self, make: Callable[[], Runtime], tmp_path: Path
    ) -> None:
        with pytest.raises(EngineError, match="absent"):
            make().load(tmp_path / "absent.onnx")


def make_rtx_builder() -> EngineBuilder:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    return TensorRTBuilder("tensorrt-rtx", ["SM86", "SM89"])


BUILDERS: dict[str, Callable[[], EngineBuilder]] = {
    "onnxruntime": OrtBuilder,
    "onnxruntime for this machine": lambda: OrtBuilder(portable=False),
    "tensorrt-rtx": make_rtx_builder,
}


@pytest.mark.parametrize("make", BUILDERS.values(), ids=BUILDERS)
class TestEngineBuilder:
    def test_builds_and_leaves_nothing_else(
        self, make: Callable[[], EngineBuilder], convolution: Path, tmp_path: Path
    ) -> None:
        builder = make()
        folder = tmp_path / "engines"
        folder.mkdir()
        engine = folder / f"network{builder.suffix}"
        builder.build(convolution, engine)
        assert engine.stat().st_size > 1000
        assert os.listdir(folder) == [engine.name]

    def test_replaces_what_is_there(
        self, make: Callable[[], EngineBuilder], convolution: Path, tmp_path: Path
    ) -> None:
        builder = make()
        engine = tmp_path / f"network{builder.suffix}"
        engine.write_bytes(b"old")
        builder.build(convolution, engine)
        assert engine.stat().st_size > 1000

    @pytest.mark.parametrize("fixture", ["unknown_operator", "junk"])
    def test_a_failure_leaves_what_was_there(
        self,
        make: Callable[[], EngineBuilder],
        fixture: str,
        request: pytest.FixtureRequest,
        tmp_path: Path,
    ) -> None:
        source = request.getfixturevalue(fixture)
        builder = make()
        folder = tmp_path / "engines"
        folder.mkdir()
        engine = folder / f"network{builder.suffix}"
        engine.write_bytes(b"old")
        with pytest.raises(CompileError, match=source.name):
            builder.build(source, engine)
        assert engine.read_bytes() == b"old"
        assert os.listdir(folder) == [engine.name]

    def test_a_missing_model_is_named(
        self, make: Callable[[], EngineBuilder], tmp_path: Path
    ) -> None:
        builder = make()
        with pytest.raises(CompileError, match="absent"):
            builder.build(tmp_path / "absent.onnx", tmp_path / f"network{builder.suffix}")

    def test_a_folder_that_cannot_be_written_is_named(
        self, make: Callable[[], EngineBuilder], convolution: Path, tmp_path: Path
    ) -> None:
        builder = make()
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(FileError, match="to write .*file"):
            builder.build(convolution, tmp_path / "file" / f"network{builder.suffix}")


def test_an_idle_session_does_not_spin(convolution: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from devices import OnnxRuntime;"
        "session = OnnxRuntime(threads=2).load(Path(sys.argv[1]));"
        "time.sleep(0.2);"  # its workers spin once, when they are started
        "session.time_ms(20);"
        "begin = time.process_time(); time.sleep(0.2); print(time.process_time() - begin)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(convolution)],
        cwd=Path(devices.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    # Processor time, not time: of a session that spins it would be several times as much.
    assert float(answer.stdout) < 0.02
