"""What is read off this machine."""

import json
import os
import platform

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
    assert found == take_fingerprint("onnxruntime", "1.2.3")


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64",
    reason="reads /proc/cpuinfo of x86-64",
)
def test_on_linux_the_processor_is_known_in_detail() -> None:
    found = take_fingerprint("onnxruntime", "1")
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpuinfo = file.read()
    flags = set(cpuinfo.split("flags", 1)[1].split("\n", 1)[0].split())
    assert found.instruction_sets
    assert set(found.instruction_sets) <= flags
    assert ("avx2" in flags) == ("avx2" in found.instruction_sets)
    assert found.memory_bytes > 1 << 28
    assert found.chip.split(" (")[0] in cpuinfo


def test_round_trip_through_json() -> None:
    found = take_fingerprint("onnxruntime", "1")
    assert Fingerprint.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_other_fields_are_refused() -> None:
    values = take_fingerprint("onnxruntime", "1").to_dict()
    del values["chip"]
    with pytest.raises(
        DeviceError, match="a fingerprint has the fields .*chip, .*found: affinity, compute_c"
    ):
        Fingerprint.from_dict(values)
