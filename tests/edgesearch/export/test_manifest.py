"""What was exported, and whether it is still that."""

import hashlib
import json

import pytest

from devices.files import sha256_of
from edgesearch.errors import ExportError
from edgesearch.export.manifest import MANIFEST, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"a" * 3_000_000)
    (tmp_path / "b.engine").write_bytes(b"b")
    files = {"a.onnx": {"precision": "fp32"}, "b.engine": {"runtime": "tensorrt-rtx"}}
    write_manifest(tmp_path, files, {"output": "features"})
    return tmp_path


def test_round_trip(folder):
    manifest = read_manifest(folder)
    assert manifest["output"] == "features"
    assert manifest["files"]["a.onnx"] == {
        "precision": "fp32",
        "bytes": 3_000_000,
        "sha256": hashlib.sha256(b"a" * 3_000_000).hexdigest(),
    }
    assert manifest["files"]["b.engine"]["sha256"] == sha256_of(folder / "b.engine")
    assert {"python", "torch", "onnx", "onnxruntime"} <= set(manifest["versions"])
    assert not list(folder.glob("*.partial"))


def test_changed_and_missing_files_are_refused(folder):
    (folder / "b.engine").write_bytes(b"c")
    with pytest.raises(ExportError, match=r"found: missing or changed: b\.engine\. Run"):
        read_manifest(folder)
    (folder / "a.onnx").unlink()
    with pytest.raises(ExportError, match=r"found: missing or changed: a\.onnx, b\.engine"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'files'"),
        ('{"files": 7}', "AttributeError"),
        ('{"files": {"a.onnx": {}}}', "KeyError: 'sha256'"),
    ],
)
def test_a_damaged_manifest_is_refused(folder, text, reason):
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match=f"a complete {MANIFEST} in .*; found: {reason}"):
        read_manifest(folder)


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(ExportError, match="found: FileNotFoundError"):
        read_manifest(tmp_path)


def test_an_unlisted_file_does_no_harm(folder):
    (folder / "notes.txt").touch()
    assert json.loads((folder / MANIFEST).read_text("utf-8")) == read_manifest(folder)
