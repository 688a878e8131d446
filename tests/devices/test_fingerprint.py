"""What is read off this machine."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from devices import Fingerprint, take_fingerprint
from devices.errors import DeviceError


def test_this_machine() -> None:
    found = take_fingerprint("onnxruntime", "1.2.3")
    assert found.chip
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.machine == platform.machine()
    assert found.python == platform.python_version()
    assert (found.runtime, found.runtime_version) == ("onnxruntime", "1.2.3")
    again = take_fingerprint("onnxruntime", "1.2.3")
    assert replace(found, temperature_c=None) == replace(again, temperature_c=None)


def test_round_trip_through_json() -> None:
    found = take_fingerprint("onnxruntime", "1")
    assert Fingerprint.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("field", ["chip", "governor", "settings", "colour"])
def test_a_missing_or_unknown_field_is_refused(field: str) -> None:
    values = {**take_fingerprint("onnxruntime", "1").to_dict(), "colour": "green"}
    if field != "colour":
        del values[field], values["colour"]
    with pytest.raises(
        DeviceError, match="a fingerprint has the fields .*chip, .*found: affinity, .*again"
    ):
        Fingerprint.from_dict(values)


NVIDIA_SMI = 'echo "NVIDIA L4, {driver}, 23034 MiB, 8.9"'


@pytest.mark.parametrize(
    ("runtime", "settings"),
    [
        ("onnxruntime", None),
        ("onnxruntime", {}),
        ("onnxruntime", {"provider": None}),
        ("onnxruntime", {"provider": "openvino", "threads": 2}),
        ("replay", {}),
    ],
)
def test_a_processors_table_outlives_a_new_driver(
    runtime: str, settings: dict[str, object] | None, program: Callable[..., Path]
) -> None:
    taken = []
    for driver in ("560.35.03", "570.86.15"):
        program("nvidia-smi", NVIDIA_SMI.format(driver=driver))
        taken.append(replace(take_fingerprint(runtime, "1", settings), temperature_c=None))
    assert taken[0] == taken[1]
    assert (taken[0].gpu, taken[0].driver, taken[0].compute_capability) == (None, None, None)


@pytest.mark.parametrize(
    ("runtime", "settings"),
    [
        ("onnxruntime", {"provider": "cuda"}),
        ("onnxruntime", {"provider": "tensorrt"}),
        ("tensorrt", None),
        ("tensorrt-rtx", {}),
    ],
)
def test_a_gpus_table_does_not(
    runtime: str,
    settings: dict[str, object] | None,
    program: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program("nvidia-smi", NVIDIA_SMI.format(driver="570.86.15"))
    found = take_fingerprint(runtime, "1", settings)
    assert (found.gpu, found.compute_capability, found.driver) == ("NVIDIA L4", "8.9", "570.86.15")
    assert found.gpu_memory_bytes == 23034 << 20


def test_a_board_from_its_files(tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    root = tree(
        {
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0",
            "etc/nv_tegra_release": "# R35 (release), REVISION: 6.0, GCID: 37391689\n",
            "sys/class/thermal/thermal_zone0/temp": "45000\n",
        }
    )
    on_gpu = take_fingerprint("tensorrt", "10.3", root=root)
    assert (on_gpu.chip, on_gpu.gpu) == ("NVIDIA Jetson AGX Orin Developer Kit", "Orin")
    assert (on_gpu.driver, on_gpu.temperature_c) == ("L4T 35.6.0", 45.0)
    on_processor = take_fingerprint("onnxruntime", "1", root=root)
    assert on_processor.chip == on_gpu.chip
    assert (on_processor.gpu, on_processor.driver) == (None, None)
