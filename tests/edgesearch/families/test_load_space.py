"""Spaces by name and from their description."""

import pytest

from devices.values import in_yaml
from edgesearch.errors import SpaceError
from edgesearch.families import known_spaces, load_space, space_from_dict


def test_shipped_spaces():
    assert known_spaces() == [
        *("mobile_lite0", "mobile_small", "mobile_v4"),
        *("resnet18to34", "resnet50to101", "resnet50to101_init", "resnet_small", "resnet_tiny"),
    ]
    for name in known_spaces():
        assert load_space(name).name == name


def test_overrides_replace_fields():
    space = load_space("resnet_tiny", in_channels=1, resolutions=[24, 32])
    assert (space.in_channels, space.resolutions, space.name) == (1, (24, 32), "resnet_tiny")
    assert space.stage_widths == load_space("resnet_tiny").stage_widths


def test_unknown_name_close_to_a_known_one():
    with pytest.raises(SpaceError, match="'resnet_tinny'. Did you mean resnet_tiny"):
        load_space("resnet_tinny")


def test_unknown_name_far_from_all():
    with pytest.raises(SpaceError, match="one of mobile_lite0, mobile_small, .* Choose one of"):
        load_space("x")


@pytest.mark.parametrize("family", ["Mobile", "mobilenet", "mobil"])
def test_a_family_that_is_nearly_right(family):
    with pytest.raises(SpaceError, match=f"'{family}'. Did you mean mobile\\?"):
        space_from_dict(load_space("mobile_v4").to_dict() | {"family": family})


def test_a_space_of_ones_own_without_its_family():
    with pytest.raises(SpaceError, match="define your own, with `family`: resnet or mobile."):
        load_space("mine", stem_widths=[8])


@pytest.mark.parametrize("family", ["transformer", ["resnet"], None])
def test_unknown_family(family):
    values = load_space("resnet_tiny").to_dict() | {"family": family}
    with pytest.raises(
        SpaceError, match="the family of a space is one of resnet, mobile"
    ) as caught:
        space_from_dict(values)
    assert caught.value.found == in_yaml(family)
