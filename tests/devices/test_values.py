"""Values in messages are written as in YAML."""

import datetime
from pathlib import Path

import pytest
import yaml

from devices.values import in_yaml


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -7, 0.1, float("inf"), float("-inf"), "", "a", "it's", 'a "b"'),
        *("a\nb", "a\\b", "grün", "\t", "null", [], [1, None, "x"], {"a": None, "b": [True]}),
        datetime.date(2026, 11, 28),
    ],
)
def test_yaml_reads_it_back(value):
    assert yaml.safe_load(in_yaml(value)) == value


def test_other_forms():
    assert in_yaml((1, (True,))) == "[1, [true]]"
    assert in_yaml(Path("a/b")) == "'a/b'"
    assert in_yaml(float("nan")) == ".nan"
    assert in_yaml("a\udcff") == '"a\\udcff"'
    assert len(in_yaml("x" * 1000)) < 70 > len(in_yaml("\\" * 1000)) / 2
    assert len(in_yaml(list(range(1000)))) < 70
