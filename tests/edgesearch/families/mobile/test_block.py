"""Keys, shapes and costs of single blocks, by hand."""

import pytest

from edgesearch.families.mobile.block import MobileBlock as Block

LAST = Block("last", 320, 1280, 1, 7, "relu6")
BLOCKS = {
    "stem_conv/in3/out32/s2/hw224/relu6/asym": Block(
        "stem_conv", 3, 32, 2, 224, "relu6", asymmetric=True
    ),
    "stem_fused/in3/out64/s8/hw224/relu": Block("stem_fused", 3, 64, 8, 224, "relu"),
    "inverted/in16/out24/e6/dw0-3/s2/hw112/relu6": Block(
        "inverted", 16, 24, 2, 112, "relu6", 6, 0, 3
    ),
    "inverted/in64/out64/e3/dw5-5/s1/hw28/relu": Block("inverted", 64, 64, 1, 28, "relu", 3, 5, 5),
    "inverted/in96/out64/e4/dw3-0/s2/hw15/relu": Block("inverted", 96, 64, 2, 15, "relu", 4, 3, 0),
    "inverted/in32/out16/e1/dw3-0/s1/hw8": Block("inverted", 32, 16, 1, 8, "", 1, 3, 0),
    "last/in320/out1280/s1/hw7/relu6": LAST,
    "head/in1280/hw7": Block("head", 1280, 1280, 1, 7),
}


@pytest.mark.parametrize("key", BLOCKS)
def test_key_describes_the_block(key):
    assert BLOCKS[key].key == key


def test_the_stage_is_no_property_of_a_block():
    one, two = (Block("inverted", 8, 8, 1, 8, "relu", 2, 0, 3, stage=stage) for stage in (1, 2))
    assert (one, hash(one), one.key) == (two, hash(two), two.key)


@pytest.mark.parametrize(
    ("key", "macs", "params", "out_hw"),
    [
        ("stem_conv/in3/out32/s2/hw224/relu6/asym", 112**2 * 3 * 32 * 9, 3 * 32 * 9 + 64, 112),
        (
            "stem_fused/in3/out64/s8/hw224/relu",
            112**2 * 3 * 32 * 9 + 56**2 * (32 * 32 * 9 + 32 * 32) + 28**2 * (32 * 96 * 9 + 96 * 64),
            3 * 32 * 9 + 32 * 32 * 9 + 32 * 32 + 32 * 96 * 9 + 96 * 64 + 2 * (3 * 32 + 96 + 64),
            28,
        ),
        (
            "inverted/in16/out24/e6/dw0-3/s2/hw112/relu6",
            112**2 * 16 * 96 + 56**2 * (96 * 9 + 96 * 24),
            16 * 96 + 96 * 9 + 96 * 24 + 2 * (96 + 96 + 24),
            56,
        ),
        (
            "inverted/in96/out64/e4/dw3-0/s2/hw15/relu",
            8**2 * (96 * 9 + 96 * 384 + 384 * 64),
            96 * 9 + 96 * 384 + 384 * 64 + 2 * (96 + 384 + 64),
            8,
        ),
        (
            "inverted/in64/out64/e3/dw5-5/s1/hw28/relu",
            28**2 * (64 * 25 + 64 * 192 + 192 * 25 + 192 * 64),
            64 * 25 + 64 * 192 + 192 * 25 + 192 * 64 + 2 * (64 + 192 + 192 + 64),
            28,
        ),
        ("head/in1280/hw7", 0, 0, 1),
    ],
)
def test_costs(key, macs, params, out_hw):
    block = BLOCKS[key]
    assert (block.macs, block.params, block.out_hw) == (macs, params, out_hw)


@pytest.mark.parametrize(
    ("key", "live_values"),
    [
        ("stem_conv/in3/out32/s2/hw224/relu6/asym", 3 * 224**2 + 32 * 112**2),
        ("inverted/in16/out24/e6/dw0-3/s2/hw112/relu6", 96 * 112**2 + 96 * 56**2),
        ("inverted/in64/out64/e3/dw5-5/s1/hw28/relu", (64 + 192 + 192) * 28**2),  # with shortcut
        ("last/in320/out1280/s1/hw7/relu6", (320 + 1280) * 7**2),
        ("head/in1280/hw7", 1280 * 7**2 + 1280),
    ],
)
def test_live_values(key, live_values):
    assert BLOCKS[key].live_values == live_values


def test_the_input_is_added_where_shapes_are_equal():
    assert [block.is_residual for block in BLOCKS.values()] == [0, 0, 0, 1, 0, 0, 0, 0]
