"""The YAML configuration: defaults, bounds, overrides."""

from edgesearch.config.config import Config
from edgesearch.config.load_config import load_config, load_device, shipped_configs

__all__ = ["Config", "load_config", "load_device", "shipped_configs"]
