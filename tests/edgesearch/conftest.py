"""One thread for torch: others may work on the same cores. And a second family of networks."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from edgesearch.families import FAMILIES

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
