"""A configuration as a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from edgesearch.config.config import Config

_HEADER = (
    "# What the latest stage in this folder was started with. Paths are absolute.\n"
    "# `edgesearch run` takes this file like any other configuration.\n"
)


def config_text(config: Config) -> str:
    """The given options as YAML, which `load_config` reads; relative paths become absolute."""
    values = _absolute(config.model_dump(exclude_unset=True))
    return _HEADER + yaml.safe_dump(to_jsonable_python(values), sort_keys=False)


def _absolute(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _absolute(item) for key, item in value.items()}
    if not isinstance(value, Path):
        return value
    is_name = len(value.parts) == 1 and not value.exists()  # such as pretrain.init
    return value if is_name else value.absolute()
