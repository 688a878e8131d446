"""Networks and their blocks as ONNX files."""

import json
from collections import Counter, OrderedDict

import numpy as np
import onnx
import pytest
import torch

from devices import OnnxRuntime
from devices.errors import FileError
from edgesearch.errors import ExportError
from edgesearch.export.engines import ONNX_FILE
from edgesearch.formats.onnx_export import OPSET, assemble_network, export_blocks, export_network
from edgesearch.space import covering_networks


@pytest.fixture(scope="module")
def model(exported):
    return onnx.load(exported / ONNX_FILE)


def shapes(model):
    """The shapes of all tensors that a model computes or holds, each with its count."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output]
    computed = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    return Counter(computed[name] for node in inferred.node for name in node.output)


def weights(model):
    return Counter(tuple(tensor.dims) for tensor in model.graph.initializer)


def operators(model):
    return [node.op_type for node in model.graph.node]


def run(path, images):
    """What onnxruntime gives for images, batch by batch."""
    session = OnnxRuntime().load(path)
    (name,), (shape,) = session.inputs, session.inputs.values()
    batches = np.split(images, len(images) // shape[0])
    found = np.concatenate([next(iter(session.run({name: b}).values())) for b in batches])
    session.close()
    return found


def test_file_is_valid_and_says_what_it_is(model, space):
    onnx.checker.check_model(model, full_check=True)
    assert [entry.name for entry in model.graph.input] == ["images"]
    assert [entry.name for entry in model.graph.output] == ["features"]
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 16, 16]
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 16]
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": OPSET}
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["space"] == "toy"
    assert json.loads(metadata["architecture"]) == dict(space.largest)


def test_normalisation_is_folded_into_the_convolutions(model, subnet):
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in subnet.modules())
    counts = Counter(operators(model))
    assert set(counts) == {"Conv", "Relu", "Add", "ReduceMean"}
    assert counts["Conv"] == convolutions


def test_gives_what_torch_gives(exported, images, expected):
    found = run(exported / ONNX_FILE, images.numpy())
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(expected).max() > 0.1


def test_leaves_no_other_file(exported):
    names = {path.name for path in exported.iterdir()}
    assert not [name for name in names if name.endswith((".partial", ".data"))]


def test_exporting_leaves_the_random_state_alone(subnet, tmp_path):
    state = torch.random.get_rng_state()
    export_network(
        torch.nn.Flatten(), tmp_path / "a.onnx", input_shape=(2, 1, 4, 4), output_names=["logits"]
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert onnx.load(tmp_path / "a.onnx").graph.output[0].name == "logits"


class _Unknown(torch.nn.Module):
    def forward(self, images):
        return torch.geqrf(images)[0]


def test_an_operator_that_cannot_be_exported_is_named(tmp_path, capsys):
    message = f"can write with opset {OPSET}; found: the operator aten.geqrf of the layer body.1: "
    body = torch.nn.Sequential(torch.nn.ReLU(), _Unknown())
    network = torch.nn.Sequential(OrderedDict(body=body))
    with pytest.raises(ExportError, match=message):
        export_network(
            network, tmp_path / "a.onnx", input_shape=(1, 1, 4, 4), output_names=["features"]
        )
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


class _Choosing(torch.nn.Module):
    def forward(self, images):
        return images if images.sum() > 0 else images + 1


def test_what_cannot_be_traced_is_told_by_its_cause(tmp_path):
    with pytest.raises(ExportError, match="found: Could not guard on data-dependent expression"):
        export_network(
            _Choosing(), tmp_path / "a.onnx", input_shape=(1, 1, 4, 4), output_names=["features"]
        )


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="to write .*file/a.onnx"):
        export_network(
            torch.nn.Flatten(),
            tmp_path / "file" / "a.onnx",
            input_shape=(1, 1, 4, 4),
            output_names=["features"],
        )


def test_every_block_is_a_file_of_its_shapes(space, blocks):
    assert len(blocks.paths) == 16
    for block in space.distinct_blocks(16):
        block_model = onnx.load(blocks.paths[block.key])
        onnx.checker.check_model(block_model, full_check=True)
        (entered,), (left,) = block_model.graph.input, block_model.graph.output
        shape_in, shape_out = (
            [d.dim_value for d in entry.type.tensor_type.shape.dim] for entry in (entered, left)
        )
        assert shape_in == [2, block.in_channels, block.hw, block.hw]
        assert shape_out == [2, *block.out_shape]
        convolutions = operators(block_model).count("Conv")
        assert convolutions == {"stem_small": 1, "head": 0}.get(block.kind, 2 + block.projection)


def test_blocks_are_cut_out_of_a_few_networks(space, blocks):
    networks = covering_networks(space, 16, blocks.paths)
    assert blocks.told == [(number, len(networks)) for number in range(1, len(networks) + 1)]
    assert len(networks) < len(blocks.paths) / 2


def test_only_wanted_blocks_are_written(space, tmp_path):
    stem = space.blocks(space.smallest)[0]
    told = []
    paths = {stem.key: tmp_path / "deep" / "stem.onnx"}
    export_blocks(space, 16, paths, batch=1, on_progress=lambda *counts: told.append(counts))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["stem.onnx"]
    assert told == [(1, 1)]


def test_joined_blocks_are_the_network(space, blocks, exported, subnet, tmp_path):
    """Same operators in the same order on the same shapes, so that both take the same time."""
    joined = onnx.load(blocks.network)
    onnx.checker.check_model(joined, full_check=True)
    whole = tmp_path / "whole.onnx"
    export_network(subnet, whole, input_shape=(2, 1, 16, 16), output_names=["features"])
    model = onnx.load(whole)
    assert operators(joined) == operators(model)
    assert shapes(joined) == shapes(model)
    convolutions = [
        [tuple(tensor.dims) for tensor in found.graph.initializer if len(tensor.dims) == 4]
        for found in (joined, model)
    ]
    assert sorted(convolutions[0]) == sorted(convolutions[1])
    assert len(joined.opset_import) == 1


def test_joined_blocks_compute_what_the_blocks_compute(space, blocks, images):
    batch = images.numpy()[:2]
    through = batch
    for block in space.blocks(space.largest):
        through = run(blocks.paths[block.key], through)
    joined = run(blocks.network, batch)
    assert np.abs(joined - through).max() <= 1e-5 * np.abs(through).max()
    assert np.isfinite(through).all()
    assert np.abs(through).max() > 1e-3


def test_any_architecture_can_be_joined(space, blocks, tmp_path):
    for index in range(0, space.size, 7):
        architecture = space.architecture(index)
        path = tmp_path / f"{index}.onnx"
        assemble_network(space.blocks(architecture), blocks.paths, path)
        session = OnnxRuntime().load(path)
        assert session.run(
            {name: np.ones(shape, np.float32) for name, shape in session.inputs.items()}
        )
