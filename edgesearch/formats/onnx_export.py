"""Networks and their blocks as ONNX files, all from one exporter and of one opset."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgesearch.errors import ExportError
from edgesearch.formats.fold_padding import fold_padding
from edgesearch.formats.onnx_files import quiet, save_model
from edgesearch.space import Block, SearchSpace, covering_networks

if TYPE_CHECKING:
    import onnx

OPSET = 18
INPUT_NAME = "images"
_MAP = "map"
"""Inputs of a head alone are called so, with their numbers."""


def export_network(
    network: nn.Module,
    path: Path,
    *,
    input_shape: tuple[int, int, int, int],
    output_names: Sequence[str],
    open_batch: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network as one ONNX file, with batch normalisation folded into the convolutions.

    `input_shape` is (N, C, H, W), with a dynamic batch size if `open_batch`; the input is called
    "images".

    Raises:
        ExportError: The exporter failed; names an unsupported operator and its layer.
    """
    model = _export(network, {INPUT_NAME: input_shape}, output_names, open_batch)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    save_model(model, path)


def export_blocks(
    space: SearchSpace,
    resolution: int,
    paths: Mapping[str, Path],
    *,
    batch: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write blocks of a space, with random weights, to one ONNX file each; `paths` is by block key.

    Blocks are extracted from whole networks, so they are exactly as inside a network.

    Raises:
        ExportError: The exporter failed.
    """
    from onnx.utils import Extractor

    missing = dict(paths)
    networks = covering_networks(space, resolution, missing)
    for number, blocks in enumerate(networks, 1):
        names = [f"block{index}" for index in range(len(blocks))]
        shape = (batch, space.in_channels, resolution, resolution)
        model = _export(_AllOutputs(space, blocks), {INPUT_NAME: shape}, names)
        extractor = Extractor(model)
        for block, before, name in zip(blocks, [INPUT_NAME, *names], names, strict=False):
            if block.key in missing:
                cut = extractor.extract_model([before], [name])
                save_model(cut, missing.pop(block.key))
        if on_progress:
            on_progress(number, len(networks))


@dataclass(frozen=True)
class HeadFile:
    """A head alone as an ONNX file.

    Attributes:
        path: The file.
        reads: Numbers of the blocks whose outputs are its maps, in order.
    """

    path: Path
    reads: tuple[int, ...]


def export_head(
    head: nn.Module, path: Path, *, shapes: Sequence[tuple[int, ...]], output_names: Sequence[str]
) -> None:
    """Write a head, a function of feature maps of these shapes (N, C, H, W), to an ONNX file.

    Maps that it does not read are left out.

    Raises:
        ExportError: See `export_network`.
    """
    inputs = {f"{_MAP}{number}": shape for number, shape in enumerate(shapes)}
    model = _export(head, inputs, output_names)
    read = {name for node in model.graph.node for name in node.input}
    for taken in [each for each in model.graph.input if each.name not in read]:
        model.graph.input.remove(taken)
    save_model(model, path)


def assemble_network(
    blocks: Sequence[Block], paths: Mapping[str, Path], path: Path, head: HeadFile | None = None
) -> None:
    """Join block files (`paths` by key) to a whole network, as `export_network` would write it.

    A head follows the blocks. The weights are random ones: the file is for measuring.
    """
    import onnx

    if head is not None:
        of_head = onnx.load(head.path).graph
        numbers = [int(taken.name.removeprefix(_MAP)) for taken in of_head.input]
        reads = [head.reads[number] for number in numbers]
        blocks = blocks[: max(reads) + 1]  # an exporter leaves out what no output needs
    loaded = {key: onnx.load(paths[key]) for key in {block.key for block in blocks}}
    first = loaded[blocks[0].key]
    whole = onnx.ModelProto(ir_version=first.ir_version, opset_import=first.opset_import)
    whole.graph.name = path.stem
    whole.graph.input.extend(first.graph.input)
    given = [first.graph.input[0].name]
    for index, block in enumerate(blocks):
        part = loaded[block.key].graph
        given.append(_continue_with(whole.graph, part, given[-1:], f"b{index}/"))
    if head is None:
        output = whole.graph.output.add()
        output.CopyFrom(part.output[0])
        output.name = given[-1]
    else:
        _continue_with(whole.graph, of_head, [given[1 + number] for number in reads], "")
        whole.graph.output.extend(of_head.output)
    save_model(whole, path)


def _continue_with(
    whole: onnx.GraphProto, part: onnx.GraphProto, given: Sequence[str], prefix: str
) -> str:
    """Append a part that reads the tensors `given`; returns the name of its first output.

    Weights are copied once; `onnx.compose` would copy all earlier parts with each part.
    """
    known = {taken.name: name for taken, name in zip(part.input, given, strict=True)}

    def renamed(name: str) -> str:
        return known.get(name) or (name and prefix + name)

    for original in part.node:
        node = whole.node.add()
        node.CopyFrom(original)
        node.name = prefix + node.name
        node.input[:] = map(renamed, node.input)
        node.output[:] = map(renamed, node.output)
    for weights in part.initializer:
        copied = whole.initializer.add()
        copied.CopyFrom(weights)
        copied.name = renamed(weights.name)
    return renamed(part.output[0].name)


class _AllOutputs(nn.Module):
    """A network with random weights that returns the output of each block."""

    def __init__(self, space: SearchSpace, blocks: Sequence[Block]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = space.make_network(blocks).eval()
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                # Keeps the sums of many blocks finite, also in fp16.
                nn.init.constant_(module.weight, 0.5)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network.forward_blocks(images))


def _export(
    network: nn.Module,
    input_shapes: Mapping[str, tuple[int, ...]],
    output_names: Sequence[str],
    open_batch: bool = False,
) -> onnx.ModelProto:
    # From a batch of 1 the exporter would infer a fixed size.
    least = 2 if open_batch else 1
    inputs = tuple(
        torch.zeros(max(batch, least), *sides) for batch, *sides in input_shapes.values()
    )
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            program = torch.onnx.export(
                network.eval(),
                inputs,
                dynamo=True,
                optimize=True,
                input_names=[*input_shapes],
                output_names=[*output_names],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},) if open_batch else None,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(
            f"a network that torch's exporter can write with opset {OPSET}",
            _reason(error, network, inputs),
            "Replace what it names in the network.",
        ) from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    fold_padding(model)
    return model


def _reason(error: BaseException, network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> str:
    """The root cause of an exporter's error; for an unknown operator with its layer."""
    messages = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        messages.append(str(error))
    said = messages[-1].strip().splitlines()[0]
    operator = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", said)
    if operator is None:
        return said
    translated = re.search(r"Error when translating node %(\w+)", "\n".join(messages))
    layer = _layer_of(translated[1], network, inputs) if translated else None
    return f"the operator {operator[1]} of the layer {layer or '(torch names none)'}: {said}"


def _layer_of(name: str, network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> str | None:
    """The innermost module of a node in the traced network; None if unknown."""
    with quiet():
        program = torch.export.export(network, inputs).run_decompositions()
    for node in program.graph.nodes:
        if node.name == name and node.meta.get("nn_module_stack"):
            return str(list(node.meta["nn_module_stack"].values())[-1][0])
    return None
