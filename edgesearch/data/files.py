"""Files below a folder, in the order in which people sort their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path


def files_below(root: Path, endings: Sequence[str]) -> list[Path]:
    """Files of these endings at any depth; hidden ones and those in hidden folders are left out."""
    found = [path for path in _walked(root) if path.suffix.lower() in endings]
    return sorted(found, key=lambda path: natural(path.relative_to(root)))


def _walked(root: Path) -> Iterator[Path]:
    """Links are followed, but none twice (they may form a circle)."""
    visited = set()
    for name, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(name)
        folders[:] = [] if real in visited else sorted(f for f in folders if f[0] != ".")
        if real not in visited:
            visited.add(real)
            yield from (Path(name, file) for file in files if not file.startswith("."))


def natural(path: Path) -> list[tuple[list[tuple[int, str]], str]]:
    """A key that sorts names as people do: `2.png` before `10.png`."""

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(number or -1), text) for number, text in re.findall(r"(\d+)|(\D+)", name)]

    return [(key(part), part) for part in path.parts]
