"""The YAML configuration: defaults, bounds, overrides."""

from edgesearch.config.config import Config
from edgesearch.config.config_text import config_text
from edgesearch.config.load_config import load_config, load_device, shipped_configs

__all__ = ["Config", "config_text", "load_config", "load_device", "shipped_configs"]
