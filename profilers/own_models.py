"""The two models that are measured beside the workloads in every round.

Changing one makes old and new sessions incomparable: increase `table_file.FORMAT` then.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Versions that runtimes on old boards still load.
_OPSET = 13
_IR_VERSION = 7


def write_overhead_model(path: Path) -> None:
    """Write a model that does nothing: its latency is the fixed cost of a run."""
    from onnx import helper

    _save([helper.make_node("Identity", ["images"], ["features"])], [], [1, 1], [1, 1], path)


def write_reference_model(path: Path) -> None:
    """Write a convolutional network of 15 million MACs: its latency shows the machine's speed."""
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, name = [], [], "images"
    for index, (channels_in, channels_out, stride) in enumerate(
        [(3, 32, 1), (32, 64, 2), (64, 64, 1)]
    ):
        values = random.standard_normal((channels_out, channels_in, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values / 10, f"weight{index}"))
        inputs, sums, active = [name, f"weight{index}"], f"sums{index}", f"active{index}"
        nodes += [
            helper.make_node("Conv", inputs, [sums], pads=[1] * 4, strides=[stride] * 2),
            helper.make_node("Relu", [sums], [active]),
        ]
        name = active
    nodes.append(helper.make_node("GlobalAveragePool", [name], ["features"]))
    _save(nodes, weights, [1, 3, 32, 32], [1, 64, 1, 1], path)


def _save(
    nodes: Sequence[Any],
    weights: Sequence[Any],
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    path: Path,
) -> None:
    import onnx
    from onnx import helper

    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, output_shape)],
        weights,
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION), path)
