"""Blocks as they are inside of networks of a number format."""

import pytest

from edgesearch.formats.precisions import precision_with


@pytest.fixture
def converted(space, blocks, tmp_path_factory):
    """Converts all blocks of the largest network; their paths by key."""

    def convert(form, space=space, files=blocks.paths):
        chain, folder = space.blocks(space.largest), tmp_path_factory.mktemp("converted")
        paths = {block.key: folder / files[block.key].name for block in chain}
        for block in chain:
            precision_with(form).write(
                files[block.key],
                paths[block.key],
                form,
                is_first=block is chain[0],
                is_last=block is chain[-1],
            )
        return paths

    return convert
