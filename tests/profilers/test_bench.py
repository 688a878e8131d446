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

    with pytest.raises(ProfilerError, match="an undisturbed round of both engines"):
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
