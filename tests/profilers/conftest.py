"""Tiny real models, and what is needed to build a table of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from devices import DeviceSpec, Fingerprint, OnnxRuntime, ReplayRuntime, Runtime, take_fingerprint
from profilers import LatencyTable, LocalMeter, MeasureConfig, Workload, build_table


@pytest.fixture
def spec() -> DeviceSpec:
    return DeviceSpec("local-cpu")


@pytest.fixture
def fingerprint() -> Fingerprint:
    return take_fingerprint("onnxruntime", "1.0")


@pytest.fixture
def write_block(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a model of one operator."""

    def write(name: str) -> Path:
        node = helper.make_node("Relu", ["images"], ["features"])
        graph = helper.make_graph(
            [node],
            "graph",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 16])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 16])],
        )
        opsets = [helper.make_opsetid("", 18)]
        path = tmp_path / f"{name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path

    return write


@pytest.fixture
def blocks(write_block: Callable[[str], Path]) -> list[Workload]:
    return [Workload(f"block/{name}", write_block(name)) for name in "abc"]


def _exactly(**changes: Any) -> MeasureConfig:
    return MeasureConfig(**{"interval": 1e9, "tolerance": 1e9, **changes})


@pytest.fixture
def exactly() -> Callable[..., MeasureConfig]:
    """Settings that make as many rounds as are asked for, whatever is measured."""
    return _exactly


@pytest.fixture
def build(tmp_path: Path, spec: DeviceSpec, fingerprint: Fingerprint) -> Callable[..., Any]:
    """Builds `table.jsonl` in the test's folder."""

    def build(
        workloads: list[Workload], runtime: Runtime | None = None, **changes: Any
    ) -> LatencyTable:
        arguments = {
            "spec": spec,
            "workloads": workloads,
            "meter": LocalMeter(runtime or OnnxRuntime(), fingerprint),
            "config": _exactly(rounds=3, runs=2),
            **changes,
        }
        return build_table(tmp_path / "table.jsonl", **arguments)

    return build


@pytest.fixture
def write(tmp_path: Path, spec: DeviceSpec, fingerprint: Fingerprint) -> Callable[..., Path]:
    """Writes a table of some lines."""

    def write(*lines: dict[str, Any], name: str = "hand.jsonl", **header: Any) -> Path:
        first = {
            "format": 1,
            "device": spec.to_dict(),
            "fingerprint": fingerprint.to_dict(),
            "measure": {},
            **header,
        }
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in (first, *lines)))
        return path

    return write


def _rounds(
    key: str, *samples_ms: list[float], session: int = 1, **more: Any
) -> list[dict[str, Any]]:
    facts = {"kind": "block", "key": key, "session": session}
    return [
        {**facts, "round": number, "samples_ms": samples, **more}
        for number, samples in enumerate(samples_ms, start=1)
    ]


@pytest.fixture
def rounds() -> Callable[..., list[dict[str, Any]]]:
    """Makes lines of a key, one for each round."""
    return _rounds


@pytest.fixture
def replay() -> Callable[..., ReplayRuntime]:
    """A runtime whose own two models take 1 ms and 0.25 ms."""

    def make(reference: float = 1.0, overhead: float = 0.25, **samples: Any) -> ReplayRuntime:
        return ReplayRuntime({"reference": [reference], "overhead": [overhead], **samples})

    return make


def _rounds_by_key(path: Path) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for line in path.read_text().splitlines()[1:]:
        values = json.loads(line)
        if values.get("kind") in ("block", "network") and "samples_ms" in values:
            found.setdefault(values["key"], []).append((values["session"], values["round"]))
    return found


@pytest.fixture
def rounds_by_key() -> Callable[[Path], dict[str, list[tuple[int, int]]]]:
    """Sessions and rounds of each block or network of a file, in the order of the file."""
    return _rounds_by_key
