"""Where files are kept that can be made again."""

import os
from pathlib import Path

import pytest

from devices.cache_dir import default_cache_dir


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
