"""Shards written on the spot."""

import io
import json
import tarfile

import pytest
from PIL import Image


def png(value, size=(6, 5)):
    """A PNG file whose pixels all have one value."""
    content = io.BytesIO()
    Image.new("L", size, value).save(content, "png")
    return content.getvalue()


@pytest.fixture(scope="session")
def write_shard():
    def write_shard(path, members):
        """A tar file; numbers stand for grey images, dicts for JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for name, content in members.items():
                if isinstance(content, int):
                    content = png(content)
                elif isinstance(content, dict):
                    content = json.dumps(content).encode()
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path

    return write_shard
