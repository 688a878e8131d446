"""CUDA graphs, with a library that stands for the driver's: what is called, and given back."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import devices
from devices import read_gpu

SOURCE = Path(__file__).with_name("graph_driver.c")
BEGIN = """
import ctypes
from devices.errors import EngineError
from devices.runtimes.cuda_graph import CudaGraph
driver = ctypes.CDLL("libcuda.so.1")
done = []
def work():
    done.append(driver.is_capturing())
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., str]:
    """Runs a program that finds the library; what it prints."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("a C compiler on Linux is needed")
    library = tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)

    def run_program(program: str, **environment: str) -> str:
        answer = subprocess.run(
            [sys.executable, "-c", BEGIN + program],
            cwd=Path(devices.__file__).parents[1],
            env={"LD_LIBRARY_PATH": str(tmp_path), "PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.stdout.strip() + answer.stderr.strip()

    return run_program


def test_work_is_captured_and_launched(run: Callable[..., str]) -> None:
    program = """
graph = CudaGraph(77, work)
for _ in range(3):
    graph.launch()
before = driver.count_left()
graph.close()
graph.close()
print(done, driver.is_capturing(), driver.count_launched(), before, driver.count_left())
"""
    assert run(program) == "[1] 0 3 2 0"


def test_work_that_fails_ends_the_capture(run: Callable[..., str]) -> None:
    program = """
def work():
    raise EngineError("work", "none", "Work.")
try:
    CudaGraph(77, work)
except EngineError as error:
    print(error, driver.is_capturing(), driver.count_left())
"""
    assert run(program) == "work; found: none. Work. 0 0"


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ("REFUSE_CAPTURE", "cuStreamEndCapture for a CUDA graph; found: capture invalidated"),
        ("REFUSE_INSTANCE", "cuGraphInstantiateWithFlags for a CUDA graph; found: operation not"),
    ],
)
def test_what_the_driver_refuses_is_said(
    refusal: str, message: str, run: Callable[..., str]
) -> None:
    program = """
try:
    CudaGraph(77, work)
except EngineError as error:
    print(error, driver.is_capturing(), driver.count_left())
"""
    answer = run(program, **{refusal: "1"})
    assert message in answer
    assert answer.endswith(" 0 0")


@pytest.mark.skipif(read_gpu()["gpu"] is not None, reason="this machine has an NVIDIA GPU")
def test_without_a_driver_it_is_said() -> None:
    program = "from devices.runtimes.cuda_graph import CudaGraph; CudaGraph(77, print)"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(devices.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "DeviceError: the NVIDIA driver's library" in answer.stderr
