"""The folder of files that can be made again: exported blocks, built engines."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """`$EDGESEARCH_CACHE`; else `edgesearch` in `$XDG_CACHE_HOME` or in `~/.cache`."""
    if os.environ.get("EDGESEARCH_CACHE"):
        return Path(os.environ["EDGESEARCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgesearch"
