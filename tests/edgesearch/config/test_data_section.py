"""Where images come from: what each source needs."""

import re

import pytest

from edgesearch.config import load_config
from edgesearch.errors import ConfigError


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "{source: shards}",
            "data.root: the path of the folder for data.source=shards is required (data.root=",
        ),
        (
            "{source: torchvision, name: CIFAR10}",
            "data.root: the path of the folder for data.source=torchvision is required (data.root=",
        ),
        (
            "{source: torchvision, root: sets}",
            "data.name: the name of a class of torchvision.datasets is required (data.name=NAME)",
        ),
        (
            "{source: folder, root: sets, name: CIFAR10}",
            "data.name: null is required for any data.source but torchvision; found: 'CIFAR10'",
        ),
        ("{source: web}", "data.source: must be 'folder', 'shards', 'torchvision' or 'digits'"),
    ],
)
def test_what_a_source_lacks_is_said(data, message):
    with pytest.raises(ConfigError, match=re.escape(f"1 fault(s):\n  - {message}")):
        load_config("quickstart", [f"data={data}"])


def test_a_pattern_of_shards_can_be_given_on_the_command_line():
    pattern = "images/train-{000..146}.tar"
    data = load_config("quickstart", ["data.source=shards", f"data.root={pattern}"]).data
    assert (data.source, str(data.root)) == ("shards", pattern)


def test_a_set_of_torchvision():
    data = load_config("quickstart", ["data={source: torchvision, name: STL10, root: sets}"]).data
    assert (data.source, data.name, str(data.root)) == ("torchvision", "STL10", "sets")
