"""One thread for torch, one exported subnet, and a second family of networks."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from edgesearch.export.engines import ONNX_FILE
from edgesearch.families import FAMILIES
from edgesearch.families.resnet.network import ResNet
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.formats.onnx_export import assemble_network, export_blocks, export_network
from edgesearch.supernet.calibrate import recalibrate

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_module():
    """The module `families/tiny.py`."""
    path = Path(__file__).parent / "families" / "tiny.py"
    spec = importlib.util.spec_from_file_location("tiny_family", path)
    module = sys.modules["tiny_family"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny_family(tiny_module, monkeypatch):
    """Makes `family: tiny` known."""
    monkeypatch.setitem(FAMILIES, "tiny", tiny_module.TinySpace)


@pytest.fixture(scope="session")
def space():
    widths, depths = ((4, 8), (8, 16)), ((1, 2), (1, 2))
    return ResNetSpace("toy", "basic", "small", (4, 8), widths, depths, (16,), in_channels=1)


@pytest.fixture(scope="session")
def images():
    """(32, 1, 16, 16), normalised."""
    return torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def subnet(space, images):
    """The largest subnet, with weights and statistics that leave nothing without effect."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(space.blocks(space.largest))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    recalibrate(network, images, 16)
    return network.eval()


@pytest.fixture(scope="session")
def expected(subnet, images):
    """(32, 16), what the subnet gives for the images."""
    with torch.no_grad():
        return subnet(images).numpy()


@pytest.fixture(scope="session")
def exported(space, subnet, tmp_path_factory):
    """The folder with the subnet's ONNX file."""
    folder = tmp_path_factory.mktemp("winner")
    export_network(
        subnet,
        folder / ONNX_FILE,
        input_shape=(1, 1, 16, 16),
        output_names=["features"],
        metadata={"architecture": json.dumps(space.largest.to_dict()), "space": space.name},
    )
    return folder


@pytest.fixture(scope="session")
def blocks(space, tmp_path_factory):
    """Files of all blocks of the space, what was told meanwhile, and the largest network's file."""
    folder = tmp_path_factory.mktemp("blocks")
    paths = {
        block.key: folder / f"{block.key.replace('/', '_')}.onnx"
        for block in space.distinct_blocks(16)
    }
    told = []
    export_blocks(space, 16, paths, batch=2, on_progress=lambda *counts: told.append(counts))
    network = folder / "network.onnx"
    assemble_network(space.blocks(space.largest), paths, network)
    return SimpleNamespace(paths=paths, told=told, network=network)
