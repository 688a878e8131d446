"""Finds the first layer whose output differs between a network and its files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from devices import layer_of, modules_of
from devices.runtimes.onnxruntime_session import open_session, session_options

if TYPE_CHECKING:
    import onnx

Fits = Callable[[np.ndarray, np.ndarray], bool]
"""Whether found outputs (second) equal expected ones (first), image by image."""
_DEQUANTIZED = "_DequantizeLinear_Output"


def differs_from_network(
    onnx_path: Path, network: nn.Module, images: np.ndarray, fits: Fits
) -> str:
    """Describe the first layer whose output in a file differs from the trained network's.

    The file is as exported by torch: its nodes name their modules. `images` is one batch (N, C, H,
    W).
    """
    import onnx

    model = onnx.load(onnx_path)
    tensors: dict[str, str] = {}
    for node in model.graph.node:
        for module in reversed(modules_of(node)):
            tensors.pop(module, None)  # its output is that of its last node
            tensors[module] = node.output[0]
    expected = _outputs_of_modules(network, images, set(tensors))
    found = _run(model, tensors.values(), images)
    pairs = ((module, expected.get(module), found[name]) for module, name in tensors.items())
    return _first(pairs, fits)


def differs_from_file(onnx_path: Path, reference_path: Path, images: np.ndarray, fits: Fits) -> str:
    """Describe the first layer whose output differs between a file and its fp32 reference.

    Both have the same tensor names. `images` is one batch (N, C, H, W).
    """
    import onnx

    reference, model = onnx.load(reference_path), onnx.load(onnx_path)
    there = {name for node in model.graph.node for name in node.output}
    layers = {
        node.output[0]: layer_of(node) for node in reference.graph.node if node.output[0] in there
    }
    # A quantizer may merge a Relu into the following quantization: compare after that.
    taps = {n: n + _DEQUANTIZED if n + _DEQUANTIZED in there else n for n in layers}
    expected = _run(reference, layers, images)
    found = _run(model, taps.values(), images)
    pairs = ((layer, expected[name], found[taps[name]]) for name, layer in layers.items())
    return _first(pairs, fits)


def _first(pairs: Iterable[tuple[str, np.ndarray | None, np.ndarray]], fits: Fits) -> str:
    for layer, expected, found in pairs:
        if expected is None or expected.shape != found.shape:
            continue
        rows = (expected.reshape(len(expected), -1), found.reshape(len(found), -1))
        if not fits(*rows):
            return f"the first layer that differs is {layer}"
    return "no single layer exceeds the tolerance: small differences accumulate"


def _outputs_of_modules(
    network: nn.Module, images: np.ndarray, names: set[str]
) -> dict[str, np.ndarray]:
    outputs: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                outputs[name] = output.detach().numpy().copy()  # later modules may work in place

        return hook

    hooks = [
        module.register_forward_hook(keep(name))
        for name, module in network.named_modules()
        if name in names
    ]
    try:
        with torch.no_grad():
            network(torch.from_numpy(images))
    finally:
        for handle in hooks:
            handle.remove()
    return outputs


def _run(
    model: onnx.ModelProto, names: Iterable[str], images: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Values of tensors inside a model, by name."""
    import onnx

    wanted = list(dict.fromkeys(names))
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    known = {output.name for output in tapped.graph.output}
    tapped.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in wanted if name not in known
    )
    session = open_session(tapped.SerializeToString(), session_options("ORT_DISABLE_ALL"))
    given = tapped.graph.input[0].name
    values = session.run(wanted, {given: images})
    return {name: np.asarray(v, np.float32) for name, v in zip(wanted, values, strict=True)}
