"""Machines as trees of files, and programs of the system as small scripts."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devices import machine


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Writes files below a folder that stands for `/`; their contents by path."""

    def make(files: dict[str, str | bytes]) -> Path:
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return make


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a shell script of some name the only program that is found."""
    if sys.platform == "win32":
        pytest.skip("runs shell scripts")
    folder = tmp_path / "bin"
    folder.mkdir()
    # Nothing else is there, such as the programs of the machine that the tests run on.
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(machine, "_ADMINISTRATORS_PATH", str(folder))

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make
