"""The control groups that limit this process, of versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path


def control_groups(root: Path, controller: str, mounts: Sequence[str]) -> Iterator[Path]:
    """The folders of this process's group of a controller and of those above it.

    Args:
        root: The folder that holds `proc` and `sys`.
        controller: Name such as "cpu" or "memory".
        mounts: Folders that version 1 may have mounted the controller at.
    """
    place = root / "sys/fs/cgroup"
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2
            places = [place, place / "unified"]
        elif controller in controllers.split(","):
            places = [place / name for name in mounts]
        else:
            continue
        # In a container the path may be the host's: the mount itself is the container's group.
        own = Path(path.lstrip("/"))
        for each in places:
            yield from (each / group for group in (own, *own.parents))


def text_of(path: Path) -> str:
    """A system file's text; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
