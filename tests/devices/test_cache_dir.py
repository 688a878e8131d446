"""Where files are kept that can be made again."""

import os
from pathlib import Path

import pytest

from devices.cache_dir import default_cache_dir, writable_cache
from devices.errors import FileError


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert default_cache_dir() == Path(os.environ["EDGESEARCH_CACHE"])
    monkeypatch.delenv("EDGESEARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "edgesearch"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "edgesearch"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # its specification: ignored
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "edgesearch"


@pytest.mark.parametrize("base", ["", "/proc/x", "FILE"])
def test_no_cache_is_told_with_the_ways_to_choose_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: str
) -> None:
    monkeypatch.delenv("EDGESEARCH_CACHE")
    monkeypatch.delenv("HOME", raising=False)
    # Without HOME the user's entry counts; a container's user may have none.
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    (tmp_path / "FILE").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / base) if base == "FILE" else base)
    with pytest.raises(FileError, match="EDGESEARCH_CACHE=FOLDER in the env.*profile.cache_dir="):
        default_cache_dir()
    monkeypatch.setenv("EDGESEARCH_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGESEARCH_CACHE", "~/kept")  # as in a crontab, which expands nothing
    assert default_cache_dir() == tmp_path / "kept"


def test_a_given_cache_that_cannot_be_written_is_told_alike(tmp_path: Path) -> None:
    (tmp_path / "FILE").touch()
    with pytest.raises(FileError, match="profile.cache_dir="):
        writable_cache(tmp_path / "FILE")
    assert writable_cache(tmp_path / "new" / "folder").is_dir()


def test_a_folder_may_be_given_from_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert writable_cache(Path("cache") / "onnx") == Path("cache/onnx")
    assert (tmp_path / "cache" / "onnx").is_dir()
