"""The file that is carried to a device; what is in it is tried in the tests of the workflow."""

import zipfile

import pytest

from devices.errors import FileError
from edgesearch.export import kit_program
from edgesearch.export.kit import KIT, LABELS, write_kit


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


def test_each_class_has_its_line(folder, tmp_path, monkeypatch):
    r"""Whatever is in its name: where lines shift, the device names the wrong class."""
    names = [
        "a\nb",
        "a\\nb",
        "\r\n",
        "\u2028",
        "\x1b[2J",
        "\udcff",
        "Zaunkönig",
        "کتاب‌ها",
        " x[/y] ",
        "",
    ]
    write_kit(folder, "subnet.onnx", {"classes": names})
    with zipfile.ZipFile(folder / KIT) as archive:
        archive.extract(LABELS, tmp_path)
    monkeypatch.setattr(kit_program, "HERE", tmp_path)
    lines = kit_program.read_labels({"output": "logits", "classes": names})
    assert len(set(lines)) == len(names)
    assert lines[:6] == ["a\\nb", "a\\\\nb", "\\r\\n", "\\u2028", "\\x1b[2J", "\\udcff"]
    assert lines[6:] == names[6:]
