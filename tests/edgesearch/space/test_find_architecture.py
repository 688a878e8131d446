"""Architectures by their text, and what is wrong with a text."""

import random

import pytest

from edgesearch.errors import SpaceError
from edgesearch.families import load_space
from edgesearch.space import Architecture, find_architecture

SPACE = load_space("resnet_tiny")


@pytest.mark.parametrize("name", ["resnet_tiny", "resnet50to101"])
def test_every_architecture_is_found_by_what_it_prints(name):
    space, rng = load_space(name), random.Random(0)
    for architecture in (space.smallest, space.largest, *(space.sample(rng) for _ in range(50))):
        assert find_architecture(space, str(architecture)) == architecture


def test_blanks_around_it_do_no_harm():
    assert find_architecture(SPACE, f" {SPACE.largest}\n") == SPACE.largest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "largest",
        "stem16_w16-48-96_d2-1-2",
        "stem16_w16-48-96_d2-1-2_r32_more",
        "stem16_w16--96_d2-1-2_r32",
        "stem-16_w16-48-96_d2-1-2_r32",
        "stem16_w16-48-9.6_d2-1-2_r32",
        "stem16_w16-48-96_d2-1-2_r³²",
    ],
)
def test_another_form_is_shown_the_right_one(text):
    with pytest.raises(SpaceError, match="in the form stem16_w16-48-96_d2-1-2_r32") as caught:
        Architecture.from_text(text)
    assert caught.value.found == repr(text)


def test_every_choice_that_is_not_of_the_space_is_named():
    with pytest.raises(SpaceError, match="an architecture of the space 'resnet_tiny'") as caught:
        find_architecture(SPACE, "stem16_w17-48-1000_d2-1-3_r32")
    assert caught.value.found == (
        "stage1_width 17 (one of 8, 16, 24); stage3_width 1000 (one of 32, 64, 96); "
        "stage3_depth 3 (one of 1, 2) in stem16_w17-48-1000_d2-1-3_r32"
    )
    assert caught.value.remedy == "The nearest is stem16_w16-48-96_d2-1-2_r32."


@pytest.mark.parametrize("text", ["stem16_w16-48_d2-1_r32", "stem16_w16-48-96_d2-1-2-1_r32"])
def test_another_number_of_stages(text):
    with pytest.raises(SpaceError, match="with widths and depths of 3 stages") as caught:
        find_architecture(SPACE, text)
    assert text in caught.value.found
    assert str(SPACE.largest) in caught.value.remedy
