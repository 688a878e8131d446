"""Silencing of the libraries that make ONNX files."""

import subprocess
import sys

LOAD = """
import numpy, onnx, onnxruntime
from onnx import helper, numpy_helper
from edgesearch.formats.onnx_files import quiet
values = [helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
unused = numpy_helper.from_array(numpy.ones(1, numpy.float32), "unused")
nodes = [helper.make_node("Relu", ["x"], ["y"])]
graph = helper.make_graph(nodes, "g", values[:1], values[1:], [unused])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
if {quiet}:
    with quiet():
        pass
onnxruntime.InferenceSession(model.SerializeToString())
"""


def messages(*, silenced: bool) -> str:
    """What a process prints that loads a model with a weight that nothing uses."""
    code = LOAD.replace("{quiet}", str(silenced))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_warnings_of_onnxruntime_do_not_reach_the_user():
    assert "Removing initializer 'unused'" in messages(silenced=False)
    assert messages(silenced=True) == ""
