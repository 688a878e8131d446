"""Spaces whose largest network does not fit in memory."""

import os

import pytest

from edgesearch.config import Config
from edgesearch.errors import SpaceError
from edgesearch.families import load_space
from edgesearch.run.context import RunContext
from edgesearch.supernet.memory import require_memory

SPACE = load_space("mobile_small", resolutions=[96])
PARAMS = SPACE.params(SPACE.largest)


def test_what_fits_is_taken():
    require_memory(SPACE, 3, 12 * PARAMS)
    require_memory(SPACE, 3)


def test_what_does_not_fit_is_refused():
    message = (
        r"0\.0 GiB of memory for the 1 million parameters of the largest network of the space "
        r"'mobile_small', 3 times; found: 0\.0 GiB in all\. Take the largest widths"
    )
    with pytest.raises(SpaceError, match=message):
        require_memory(SPACE, 3, 12 * PARAMS - 1)


def test_no_command_starts_with_a_network_larger_than_the_memory(tmp_path):
    # A 1×1 convolution between so many channels takes more than this machine has.
    held = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    width = 16 * int((held / 4) ** 0.5 / 16 + 1)
    values = {"name": "mobile_small", "head_widths": [64, width]}
    values["stage_widths"] = [[16], [24], [32], [48], [64], [width]]
    sections = {"space": values, "data": {"source": "digits"}, "output_dir": str(tmp_path)}
    config = Config.model_validate(sections)
    with pytest.raises(SpaceError, match="GiB of memory for the .* million parameters"):
        _ = RunContext(config).space
