"""Keys, shapes and costs of single blocks, by hand."""

import pytest

from edgesearch.families.resnet.block import ResNetBlock as Block

BLOCKS = {
    "stem_imagenet/in3/out32/s2/hw224": Block("stem_imagenet", 3, 32, 32, 2, 224),
    "stem_small/in1/out8/s1/hw32": Block("stem_small", 1, 8, 8, 1, 32),
    "basic/in8/mid16/out16/s2/hw15/proj": Block("basic", 8, 16, 16, 2, 15, True),
    "bottleneck/in256/mid128/out512/s2/hw56/proj": Block("bottleneck", 256, 128, 512, 2, 56, True),
    "bottleneck/in512/mid128/out512/s1/hw28": Block("bottleneck", 512, 128, 512, 1, 28),
    "head/in512/hw7": Block("head", 512, 512, 512, 1, 7),
}


@pytest.mark.parametrize("key", BLOCKS)
def test_key_describes_the_block(key):
    assert BLOCKS[key].key == key


@pytest.mark.parametrize(
    ("key", "macs", "params", "out_hw"),
    [
        ("stem_imagenet/in3/out32/s2/hw224", 112**2 * 3 * 32 * 49, 3 * 32 * 49 + 64, 56),
        ("stem_small/in1/out8/s1/hw32", 32**2 * 8 * 9, 8 * 9 + 16, 32),
        (
            "basic/in8/mid16/out16/s2/hw15/proj",
            8**2 * (8 * 16 * 9 + 16 * 16 * 9 + 8 * 16),
            8 * 16 * 9 + 16 * 16 * 9 + 8 * 16 + 3 * 32,
            8,
        ),
        (
            "bottleneck/in256/mid128/out512/s2/hw56/proj",
            56**2 * 256 * 128 + 28**2 * (128 * 128 * 9 + 128 * 512 + 256 * 512),
            256 * 128 + 128 * 128 * 9 + 128 * 512 + 256 * 512 + 2 * (128 + 128 + 512 + 512),
            28,
        ),
        (
            "bottleneck/in512/mid128/out512/s1/hw28",
            28**2 * (512 * 128 + 128 * 128 * 9 + 128 * 512),
            512 * 128 + 128 * 128 * 9 + 128 * 512 + 2 * (128 + 128 + 512),
            28,
        ),
        ("head/in512/hw7", 0, 0, 1),
    ],
)
def test_costs(key, macs, params, out_hw):
    block = BLOCKS[key]
    assert (block.macs, block.params, block.out_hw) == (macs, params, out_hw)
