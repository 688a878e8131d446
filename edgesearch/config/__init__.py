"""What a run is told: the YAML configuration, its defaults and its bounds."""

from edgesearch.config.budgets_section import BudgetsSection
from edgesearch.config.load_config import load_config, load_device_section, shipped_configs
from edgesearch.config.schema import Config, DeviceSection

__all__ = [
    "BudgetsSection",
    "Config",
    "DeviceSection",
    "load_config",
    "load_device_section",
    "shipped_configs",
]
