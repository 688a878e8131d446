"""The models that the profiler measures beside the workloads."""

from pathlib import Path

import numpy as np
import onnx

from devices import OnnxRuntime
from profilers.own_models import write_overhead_model, write_reference_model


def test_they_are_valid_run_and_never_differ(tmp_path: Path) -> None:
    for write in (write_overhead_model, write_reference_model):
        path = tmp_path / "model.onnx"
        write(path)
        first = path.read_bytes()
        write(path)
        assert path.read_bytes() == first
        onnx.checker.check_model(onnx.load(path), full_check=True)
        session = OnnxRuntime().load(path)
        inputs = {n: np.ones(shape, np.float32) for n, shape in session.inputs.items()}
        assert all(np.isfinite(array).all() for array in session.run(inputs).values())


def test_the_reference_works_and_the_overhead_does_not(tmp_path: Path) -> None:
    write_overhead_model(tmp_path / "overhead.onnx")
    write_reference_model(tmp_path / "reference.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "overhead.onnx").graph.node]
    assert operators == ["Identity"]
    operators = [node.op_type for node in onnx.load(tmp_path / "reference.onnx").graph.node]
    assert operators.count("Conv") == 3
