"""Engines that are not built twice."""

from pathlib import Path

import pytest

from devices.errors import CompileError, FileError
from devices.runtimes.engine_cache import EngineCache


def test_what_was_built_is_found(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "new" / "engines")
    assert cache.get("key") is None
    assert cache.build("key", lambda path: path.write_bytes(b"engine")) == b"engine"
    assert cache.get("key") == b"engine"
    assert cache.get("other") is None
    assert EngineCache(cache.folder).get("key") == b"engine"


@pytest.mark.parametrize("damage", [b"", b"engin", b"ENGINE"])
def test_what_is_damaged_is_not_found(damage: bytes, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.build("key", lambda path: path.write_bytes(b"engine"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert cache.get("key") is None
    cache.build("key", lambda path: path.write_bytes(b"another"))
    assert cache.get("key") == b"another"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise CompileError("a network", "none", "Change it.")

    with pytest.raises(CompileError, match="a network"):
        EngineCache(tmp_path).build("key", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = EngineCache(tmp_path / "file" / "engines")
    with pytest.raises(FileError, match="to keep engines in .*file.*EDGESEARCH_CACHE"):
        cache.build("key", lambda path: path.write_bytes(b"engine"))
