"""What measures here, beside its own models."""

from collections.abc import Callable
from pathlib import Path

import pytest

from devices import DeviceSpec, Fingerprint, OnnxRuntime, ReplayRuntime
from devices.errors import EngineError
from profilers import LocalMeter, MeasureConfig, ProfilerError, Workload, open_meter
from profilers.meter import write_own_models


def test_what_is_given_for_each_round(
    blocks: list[Workload], fingerprint: Fingerprint, exactly: Callable[..., MeasureConfig]
) -> None:
    meter = LocalMeter(OnnxRuntime(), fingerprint)
    found = list(meter.measure(blocks[:2], blocks[2:], exactly(rounds=2), {}))
    assert meter.fingerprints == [fingerprint]
    for number in (1, 2):
        keys = [f"anchor {m.key}" if m.anchor else m.key for m in found if m.round == number]
        assert keys[0] == keys[-1] == "reference"
        assert sorted(keys[1:-1]) == ["anchor block/c", "block/a", "block/b", "overhead"]
    assert {m.session for m in found} == {0}
    meter.close()


def test_own_models_can_be_given(
    blocks: list[Workload],
    fingerprint: Fingerprint,
    exactly: Callable[..., MeasureConfig],
    tmp_path: Path,
) -> None:
    # As on a board without the package onnx.
    paths = write_own_models(tmp_path)
    meter = LocalMeter(OnnxRuntime(), fingerprint, paths)
    keys = {m.key for m in meter.measure(blocks[:1], (), exactly(rounds=1), {})}
    assert keys == {"reference", "overhead", "block/a"}
    paths["overhead"].unlink()
    with pytest.raises(EngineError, match="overhead.onnx"):
        list(meter.measure(blocks[:1], (), exactly(rounds=1), {}))


def test_a_measuring_that_is_given_up_closes_its_sessions(
    write_block: Callable[[str], Path], fingerprint: Fingerprint
) -> None:
    sessions = []

    class Keeping(OnnxRuntime):
        def load(self, path: Path):  # type: ignore[no-untyped-def]
            sessions.append(super().load(path))
            return sessions[-1]

    measuring = LocalMeter(Keeping(), fingerprint).measure(
        [Workload("a", write_block("a"))], (), MeasureConfig(), {}
    )
    next(measuring)
    measuring.close()  # type: ignore[attr-defined]
    assert len(sessions) == 3
    for session in sessions:
        with pytest.raises(EngineError, match="closed"):
            session.time_ms(1)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ProfilerError, match="to write two small models .*; found: Not a dir"):
        write_own_models(tmp_path / "file" / "x")


def test_a_device_opens_its_meter(
    blocks: list[Workload], exactly: Callable[..., MeasureConfig]
) -> None:
    meter = open_meter(DeviceSpec("local-cpu"))
    (fingerprint,) = meter.fingerprints
    assert fingerprint.runtime == "onnxruntime"
    found = [m for m in meter.measure(blocks, (), exactly(rounds=1), {}) if m.key == "block/a"]
    assert [m.round for m in found] == [1]


def test_errors_of_anchors_are_passed_over(
    fingerprint: Fingerprint, exactly: Callable[..., MeasureConfig]
) -> None:
    runtime = ReplayRuntime({"reference": [1.0], "overhead": [0.1], "a": [1.0]})
    meter = LocalMeter(runtime, fingerprint)
    workloads = [Workload("a", Path("a")), Workload("b", Path("b"))]
    found = list(meter.measure(workloads, [Workload("c", Path("c"))], exactly(rounds=1), {}))
    errors = [m.key for m in found if isinstance(m.outcome, EngineError)]
    assert errors == ["b"]
