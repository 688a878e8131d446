"""Faults of the section `search.budgets`, each with the path of its key."""

import pytest

from edgesearch.config import load_config
from edgesearch.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "search.budgets={macs: {min: 5, max: 3}}",
            "search.budgets.macs: a min that is at most max is required; found: 5 to 3",
        ),
        ("search.budgets={macs: {mn: 5}}", "search.budgets.macs.mn: unknown key"),
        (
            "search.budgets={macs: [5, 6]}",
            "search.budgets.macs: must be a number, or a section of min and max; found: [5, 6]",
        ),
        (
            "search.budgets={latency_of_largest: {min: 0.1}}",
            "search.budgets.latency_of_largest: must be a share, or a list of them; found: {",
        ),
        ("search.budgets.latency_ms=[]", "search.budgets.latency_ms: must have at least 1 item"),
        ("search.budgets.latency_ms=[1, -2]", "search.budgets.latency_ms.1: must be greater than"),
        (
            "search.budgets={devices: {bord: {latency_ms: 1}}}",
            "search.budgets.devices: a device of the catalog",
        ),
        (
            "search.budgets={devices: {local-cpu: {latency_ms: 1}}}",
            "search: names of further devices are required in search.budgets.devices; "
            "found: 'local-cpu'. The budgets of the device itself stand in search.budgets",
        ),
    ],
)
def test_faults_are_named_by_their_key(override, message):
    with pytest.raises(ConfigError) as raised:
        load_config("quickstart", ["search.budgets=", override])
    assert message in str(raised.value)
    assert "form:" not in str(raised.value)
