"""NNI, imported where a strategy of its own is asked for."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

from edgesearch.errors import SearchError


def import_nni(module: str, strategy: str) -> Any:
    """Import a module of NNI, and keep it quiet.

    Args:
        module: Its full name.
        strategy: What needs it.

    Raises:
        SearchError: NNI is not installed.
    """
    # Without this NNI imports pytorch-lightning, which it does not need here.
    os.environ.setdefault("NNI_FRAMEWORK", "none")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise SearchError(
            f"the package nni 3.0 for the strategy `{strategy}`",
            str(error),
            "Install it with: pip install nni==3.0",
        ) from error
    logging.getLogger("nni").setLevel(logging.CRITICAL)
    return imported
