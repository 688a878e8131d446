"""From unlabeled images, a search space and a device to engines within a latency budget.

Public names are imported when they are first used (PEP 562), so that `import edgesearch` and
`edgesearch --help` stay fast.
"""

from __future__ import annotations

import importlib
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


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return __all__
