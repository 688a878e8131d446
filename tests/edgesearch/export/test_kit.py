"""The file that is carried to a device; what is in it is tried in the tests of the workflow."""

import zipfile

import pytest

from devices.errors import FileError
from edgesearch.export.kit import KIT, write_kit


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "subnet.onnx").write_bytes(b"a model")
    return tmp_path


def test_the_same_files_give_the_same_bytes(folder):
    manifest = {"classes": ["cat", "dog"]}
    write_kit(folder, "subnet.onnx", manifest)
    before = (folder / KIT).read_bytes()
    write_kit(folder, "subnet.onnx", manifest)
    assert (folder / KIT).read_bytes() == before
    with zipfile.ZipFile(folder / KIT) as archive:
        assert archive.read("subnet.onnx") == b"a model"
        assert archive.read("labels.txt") == b"cat\ndog\n"
        assert not [name for name in archive.namelist() if name.startswith("edgesearch")]
        assert {"run.py", "manifest.json", "devices/spec.py"} <= set(archive.namelist())
    assert sorted(path.name for path in folder.iterdir()) == [KIT, "subnet.onnx"]


def test_no_room_is_said(folder):
    (folder / f".{KIT}.partial").mkdir()
    with pytest.raises(FileError, match=r"to write .*kit\.zip; found: Is a directory"):
        write_kit(folder, "subnet.onnx", {"classes": []})
