"""Architectures as values, and as JSON."""

import json

import pytest

from edgesearch.errors import SpaceError
from edgesearch.space import Architecture

RESNET50 = Architecture(64, (64, 128, 256, 512), (3, 4, 6, 3), 224)


def test_is_a_hashable_value():
    twin = Architecture(64, (64, 128, 256, 512), (3, 4, 6, 3), 224)
    assert {RESNET50, twin} == {RESNET50}
    assert Architecture(64, (64, 128, 256, 512), (3, 4, 6, 3), 192) not in {RESNET50}


def test_comes_back_from_json():
    text = json.dumps(RESNET50.to_dict())
    assert Architecture.from_dict(json.loads(text)) == RESNET50


def test_reads_as_text():
    assert str(RESNET50) == "stem64_w64-128-256-512_d3-4-6-3_r224"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"stem_width": 8.7}, "8.7"),
        ({"stem_width": "64"}, "'64'"),
        ({"stem_width": True}, "True"),
        ({"resolution": None}, "None"),
        ({"stage_depths": 3}, "'int' object is not iterable"),
        ({"stage_depths": "3463"}, "'3'"),
        ({"stage_widths": [64, 128.5, 256, 512]}, "128.5"),
        ({"width": 64}, "'width'"),
    ],
)
def test_refuses_other_values(change, found):
    with pytest.raises(SpaceError, match="stem_width, stage_widths, .* in whole numbers") as caught:
        Architecture.from_dict({**RESNET50.to_dict(), **change})
    assert found in caught.value.found


def test_refuses_a_missing_field():
    values = RESNET50.to_dict()
    del values["resolution"]
    with pytest.raises(SpaceError, match=r"found: the fields \['stage_depths', 'stage_widths', "):
        Architecture.from_dict(values)


def test_refuses_what_is_no_mapping():
    with pytest.raises(SpaceError, match="Correct the entry, or copy one from winners.json"):
        Architecture.from_dict(None)
