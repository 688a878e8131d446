"""What is installed, and what would spoil measurements."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import devices
from devices import DetectedRuntime, detect_runtimes, hazards

REPOSITORY = Path(devices.__file__).parents[1]

CALM: dict[str, Any] = {
    "cores": 4,
    "processors": 4.0,
    "governor": "performance",
    "frequency_khz": (1000000, 2000000),
    "power_mode": None,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"governor": None},
        {"governor": None, "frequency_khz": None},
        # Locked, as `jetson_clocks` does, whatever the governor.
        {"governor": "schedutil", "frequency_khz": (2000000, 2000000)},
    ],
)
def test_a_machine_to_measure_on(changes: dict[str, Any]) -> None:
    assert hazards({**CALM, **changes}, threads=4, load=0.3) == []
    assert hazards({**CALM, **changes}, threads=1, load=None) == []


@pytest.mark.parametrize("frequency_khz", [(1000000, 2000000), None])
def test_a_clock_that_changes(frequency_khz: tuple[int, int] | None) -> None:
    moving = {**CALM, "governor": "ondemand", "frequency_khz": frequency_khz}
    (found,) = hazards(moving, threads=1, load=0.0)
    assert found == (
        "the clock frequency changes with the load (governor ondemand): "
        "sudo cpupower frequency-set -g performance"
    )
    (found,) = hazards({**moving, "power_mode": "15W"}, threads=1, load=0.0)
    assert found.endswith("(governor ondemand): sudo jetson_clocks")


def test_fewer_cores_than_threads() -> None:
    (found,) = hazards(CALM, threads=5, load=0.0)
    assert "this process gets 4 processor(s), but the device has 5 threads" in found
    assert "set device.threads" in found
    (found,) = hazards({**CALM, "processors": 1.5}, threads=2, load=0.0)
    assert "gets 1.5 processor(s)" in found
    assert hazards({**CALM, "processors": 0.5}, threads=1, load=0.0) == []


@pytest.mark.parametrize(
    ("cores", "load", "is_busy"),
    [(1, 0.5, False), (1, 0.6, True), (64, 6.4, False), (64, 6.5, True)],
)
def test_a_busy_machine(cores: int, load: float, is_busy: bool) -> None:
    found = hazards({**CALM, "cores": cores}, threads=1, load=load)
    busy = [f"the machine is busy (load {load:.1f}): measure when others are done"]
    assert found == (busy if is_busy else [])


def by_name() -> dict[str, DetectedRuntime]:
    return {runtime.name: runtime for runtime in detect_runtimes()}


def test_onnxruntime_with_its_providers() -> None:
    first = detect_runtimes()[0]
    assert (first.name, first.version) == ("onnxruntime", onnxruntime.__version__)
    assert first.missing is None
    assert first.providers == tuple(onnxruntime.get_available_providers())
    assert "CPUExecutionProvider" in first.providers


def test_what_is_looked_for() -> None:
    assert [*by_name()] == ["onnxruntime", "tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings"]
    for runtime in detect_runtimes():
        assert (runtime.version is None) == (runtime.missing is not None)


def test_what_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    found = by_name()
    assert (found["tensorrt"].missing or "").startswith(
        "not installed (pip install tensorrt; on a "
    )
    assert found["pycuda"].missing == "not installed (pip install pycuda)"
    assert found["cuda-bindings"].missing == "not installed (pip install cuda-bindings)"
    assert "tensorrt-rtx-cu13-bindings" in (found["tensorrt-rtx"].missing or "")


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("tensorrt_cu12_bindings", "tensorrt"),
        ("tensorrt", "tensorrt"),
        ("tensorrt_rtx_cu12_bindings", "tensorrt-rtx"),
        ("pycuda", "pycuda"),
        ("cuda_bindings", "cuda-bindings"),
    ],
)
def test_a_package_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str
) -> None:
    folder = tmp_path / f"{package}-10.3.0.dist-info"
    folder.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 10.3.0\n"
    (folder / "METADATA").write_text(metadata)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert by_name()[name] == DetectedRuntime(name, "10.3.0")


def in_a_process(packages: Path) -> list[dict[str, Any]]:
    """What a Python finds that looks for packages in a folder first."""
    code = "import dataclasses, json; from devices import detect_runtimes; "
    code += "print(json.dumps([dataclasses.asdict(found) for found in detect_runtimes()]))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(packages)!r}); {code}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("error", ["ImportError('no libcudart')", "RuntimeError('no libcudart')"])
def test_an_onnxruntime_that_is_broken(tmp_path: Path, error: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(f"raise {error}\n")
    first = in_a_process(tmp_path)[0]
    assert first == asdict(
        DetectedRuntime(
            "onnxruntime",
            None,
            "cannot be imported: no libcudart (pip install onnxruntime)",
        )
    ) | {"providers": []}


def test_libraries_that_compute_on_gpus_are_not_imported(tmp_path: Path) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "pycuda", "cuda"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    assert in_a_process(tmp_path)[0]["version"] == onnxruntime.__version__
