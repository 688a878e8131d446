"""One engine, or two in turn: figures by hand, on real models, and on a board."""

import contextlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices import DeviceSpec, Fingerprint, OnnxRuntime, ReplayRuntime
from devices.errors import EngineError
from devices.power import PowerMeter
from profilers import (
    LocalMeter,
    MeasureConfig,
    ProfilerError,
    bench_engines,
    open_meter,
    usage,
    usage_of,
)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model with 16 MiB of weights, open in its batch."""
    weights = np.ones((2048, 2048), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["images", "weights"], ["features"])],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 2048])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 2048])],
        [numpy_helper.from_array(weights, "weights")],
    )
    path = tmp_path / "large.onnx"
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_figures_by_hand(
    spec: DeviceSpec,
    fingerprint: Fingerprint,
    replay: Callable[..., ReplayRuntime],
    exactly: Callable[..., MeasureConfig],
) -> None:
    # Per round: one warm-up run in the first, then a cold run and three warm ones.
    runtime = replay(a=[2.0], b=[9.0, 4.0, 4.0, 8.0])
    meter = LocalMeter(runtime, fingerprint)
    paths = [Path("a.onnx"), Path("b.onnx")]
    timings, ratio, _ = bench_engines(spec, meter, paths, exactly(rounds=4, runs=3))
    a, b = timings
    assert (a.rounds, a.runs, a.p50_ms, a.p99_ms, a.low_ms) == (4, 12, 2.0, 2.0, 2.0)
    assert a.interval_ms == (2.0, 2.0)
    # The cold run takes turns with the others: warm are (4, 8, 9), always in this order.
    assert (b.rounds, b.runs, b.low_ms) == (4, 12, 4.0)
    assert b.p50_ms <= b.p90_ms <= b.p95_ms <= b.p99_ms <= 9.0
    assert ratio is not None
    assert ratio.rounds == 4
    assert ratio.ratio == pytest.approx(a.p50_ms / b.p50_ms)
    assert ratio.interval[0] <= ratio.ratio <= ratio.interval[1]


def test_one_alone_has_no_ratio(
    spec: DeviceSpec,
    fingerprint: Fingerprint,
    replay: Callable[..., ReplayRuntime],
    exactly: Callable[..., MeasureConfig],
) -> None:
    meter = LocalMeter(replay(a=[2.0]), fingerprint)
    _, ratio, steadiness = bench_engines(spec, meter, [Path("a.onnx")], exactly(rounds=2))
    assert ratio is None
    assert steadiness.keys == 1


def test_what_cannot_be_loaded_is_named(
    spec: DeviceSpec, tmp_path: Path, exactly: Callable[..., MeasureConfig]
) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"no model")
    with (
        contextlib.closing(open_meter(spec)) as meter,
        pytest.raises(EngineError, match=r"must be able to load .*damaged\.onnx"),
    ):
        bench_engines(spec, meter, [path], exactly(rounds=1))


def test_two_that_share_no_round_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from profilers import bench

    class Table:
        def samples_ms(self, key: str) -> dict[tuple[int, int], list[float]]:
            return {(1, 1 if key == "a" else 2): [1.0]}

    with pytest.raises(ProfilerError, match="a round in which both engines were measured"):
        bench._ratio(Table(), "a", "b")  # type: ignore[arg-type]


def test_memory_is_that_of_the_model(large: Path, write_block: Callable[[str], Path]) -> None:
    small = usage_of(DeviceSpec("local-cpu"), write_block("small"))
    found = usage_of(DeviceSpec("local-cpu", batch=4), large)
    assert small.memory_bytes is not None
    assert found.memory_bytes is not None
    assert found.memory_bytes > 14 << 20
    assert small.memory_bytes < found.memory_bytes / 2


def test_a_process_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="a process that runs .*missing.onnx"):
        usage_of(DeviceSpec("local-cpu"), tmp_path / "missing.onnx")


def test_on_a_board(board: Any, large: Path, exactly: Callable[..., MeasureConfig]) -> None:
    spec = board.spec(batch=2)
    with contextlib.closing(open_meter(spec)) as meter:
        timings, ratio, _ = bench_engines(spec, meter, [large, large], exactly(rounds=3, runs=2))
    assert [timing.runs for timing in timings] == [6, 6]
    assert ratio is not None
    found = usage_of(spec, large)
    assert found.memory_bytes is not None
    assert found.memory_bytes > 14 << 20
    assert board.left() == []


@pytest.mark.parametrize(
    ("runtime", "provider", "is_asked"),
    [
        ("onnxruntime", None, False),
        ("onnxruntime", "acl", False),
        ("onnxruntime", "openvino", False),
        ("onnxruntime", "coreml", False),
        ("onnxruntime", "cuda", True),
        ("onnxruntime", "tensorrt-rtx", True),
        ("tensorrt", None, True),
        ("tensorrt-rtx", None, True),
    ],
)
def test_only_an_nvidia_card_is_asked_for_power(
    runtime: str,
    provider: str | None,
    is_asked: bool,
    write_block: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(usage, "SECONDS", 0.01)
    monkeypatch.setattr(usage, "open_runtime", lambda spec: OnnxRuntime())
    monkeypatch.setattr("devices.power.read_card_power_w", lambda: 77.0)
    # A processor without counters: what is told is told by the card.
    monkeypatch.setattr(usage, "PowerMeter", partial(PowerMeter, write_block("block").parent))
    spec = DeviceSpec("some", runtime=runtime, provider=provider)
    usage.print_usage(json.dumps(spec.to_dict()), str(write_block("block")))
    told = json.loads(capsys.readouterr().out)
    assert told["power_w"] == told["idle_power_w"] == (77 if is_asked else None)
    on_processor = provider in (None, "acl") and runtime == "onnxruntime"
    assert (told["memory_bytes"] is not None) == on_processor


def write(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")


def test_power_of_a_jetson(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4"
    write(folder, in1_label="VDD_IN", in1_input=5000, curr1_input=1000)
    write(folder, in2_label="VDD_CPU_GPU_CV", in2_input=5000, curr2_input=400)
    power = PowerMeter(tmp_path)
    assert power.mean_w() is None
    power.sample()
    write(folder, curr1_input=2000)
    power.sample()
    assert power.mean_w() == pytest.approx(7.5)
    power.restart()
    power.sample()
    assert power.mean_w() == pytest.approx(10.0)


def test_power_of_all_rails_where_none_is_the_total(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4"
    write(folder, in1_label="VDD_GPU_SOC", in1_input=10000, curr1_input=300)
    write(folder, in2_label="VDD_CPU_CV", in2_input=10000, curr2_input=200)
    power = PowerMeter(tmp_path)
    power.sample()
    assert power.mean_w() == pytest.approx(5.0)


def test_power_of_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("devices.power.time.monotonic", lambda: now[0])
    folder = tmp_path / "sys/class/powercap/intel-rapl:0"
    write(folder, energy_uj=9_000_000, max_energy_range_uj=10_000_000)
    power = PowerMeter(tmp_path)
    now[0] += 2
    write(folder, energy_uj=5_000_000)  # it has begun anew
    assert power.mean_w() == pytest.approx(3.0)


def test_no_sensors_no_power(tmp_path: Path) -> None:
    power = PowerMeter(tmp_path)
    power.sample()
    assert power.mean_w() is None
