"""What every precision promises, in each of its number formats."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from devices import OnnxRuntime
from devices.runtimes.known_runtimes import RUNTIMES
from edgesearch.errors import ExportError
from edgesearch.export.engines import ONNX_FILE
from edgesearch.export.verify import verify_engine
from edgesearch.formats.onnx_export import assemble_network
from edgesearch.formats.precision import Calibration
from edgesearch.formats.precisions import PRECISIONS, precision_with

FORMATS = [form for p in PRECISIONS.values() if p.convert for form in p.number_formats]
INSIDE = {"fp16": TensorProto.FLOAT16, "u8s8": TensorProto.UINT8, "s8s8": TensorProto.INT8}
"""The type of what passes from block to block: that of other formats, or single precision."""


def test_names_files_and_formats_are_those_of_one_precision():
    found = PRECISIONS.values()
    assert [precision.name for precision in found] == list(PRECISIONS)
    assert len({precision.file for precision in found}) == len(PRECISIONS)
    assert [precision.file for precision in found if precision.convert is None] == [ONNX_FILE]
    forms = [form for precision in found for form in precision.number_formats]
    assert len(set(forms)) == len(forms)
    assert all(form in precision_with(form).number_formats for form in forms)


def test_a_format_that_nobody_makes_is_refused():
    with pytest.raises(ExportError, match="a number format among fp32, fp16, u8s8, .*'fp8'"):
        precision_with("fp8")


@pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)
@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
def test_runtimes_want_what_can_be_made(precision, runtime):
    for provider in (None, *runtime.providers):
        for machine in ("x86_64", "aarch64"):
            for sets in ((), ("avx_vnni",)):
                wanted = runtime.number_format(precision.name, provider, machine, sets)
                assert wanted in precision.number_formats


def types(path):
    graph = onnx.load(path).graph
    return [t.type.tensor_type.elem_type for t in (*graph.input, *graph.output)]


@pytest.mark.parametrize("form", FORMATS)
class TestConvert:
    def test_a_network_gives_nearly_the_same(self, form, exported, images, expected, tmp_path):
        precision, pixels = precision_with(form), images.numpy()
        calibration = Calibration([pixels[i : i + 1] for i in range(16)])
        path = tmp_path / "converted.onnx"
        precision.write(exported / ONNX_FILE, path, form, calibration=calibration)
        parity = verify_engine(path, OnnxRuntime(), pixels, expected, precision)
        assert parity.max_difference > 1e-5
        assert types(path) == [TensorProto.FLOAT] * 2
        model = onnx.load(path)
        assert {entry.key: entry.value for entry in model.metadata_props}["space"] == "toy"
        kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
        sizes = {helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize for tensor in kernels}
        assert sizes == {precision.value_bytes}
        assert list(tmp_path.iterdir()) == [path]

    def test_blocks_pass_on_what_they_do_inside_of_a_network(
        self, form, space, converted, tmp_path
    ):
        chain, paths = space.blocks(space.largest), converted(form)
        inside = INSIDE.get(form.removesuffix("-reduced"), TensorProto.FLOAT)
        for block in chain:
            before, after = types(paths[block.key])
            assert before == (TensorProto.FLOAT if block is chain[0] else inside)
            assert after == (TensorProto.FLOAT if block is chain[-1] else inside)
            assert min(OnnxRuntime().load(paths[block.key]).time_ms(2)) > 0
        joined = tmp_path / "joined.onnx"
        assemble_network(chain, paths, joined)
        session = OnnxRuntime().load(joined)
        (features,) = session.run({"images": np.zeros((2, 1, 16, 16), np.float32)}).values()
        assert features.dtype == np.float32
