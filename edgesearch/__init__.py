"""From unlabeled images, a search space and a device to engines within a latency budget.

Public names are imported when they are first used (PEP 562), so that `import edgesearch` and
`edgesearch --help` stay fast.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgesearch.api import Run
    from edgesearch.config import Config, load_config
    from edgesearch.export.load_subnet import load_subnet
    from edgesearch.families import load_space
    from edgesearch.space import Architecture, SearchSpace

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Config",
    "Run",
    "SearchSpace",
    "__version__",
    "load_config",
    "load_space",
    "load_subnet",
]

_ROOMS = {
    "Architecture": "edgesearch.space",
    "Config": "edgesearch.config",
    "Run": "edgesearch.api",
    "SearchSpace": "edgesearch.space",
    "load_config": "edgesearch.config",
    "load_space": "edgesearch.families",
    "load_subnet": "edgesearch.export.load_subnet",
}


def _refuse_shadows() -> None:
    """Say which file of the user stands in the way of a package that edgesearch needs."""
    root = Path(__file__).resolve().parents[1]
    for name in ("devices", "profilers"):
        found = importlib.util.find_spec(name)
        origin = None if found is None else found.origin
        if origin is None or Path(origin).resolve().parents[1] != root:
            raise ImportError(
                f"edgesearch needs its own package {name!r}, but Python finds "
                f"{origin or 'none'} first. Rename that file or folder, or start Python elsewhere; "
                "the command `edgesearch` is not affected by files in the current folder."
            )


if sys.argv[:1] != ["-m"]:  # `python -m edgesearch` removes the current folder from the path later
    _refuse_shadows()


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return __all__
