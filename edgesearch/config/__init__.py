"""What a run is told: the YAML configuration, its defaults and its bounds."""

from edgesearch.config.budgets_section import BudgetsSection
from edgesearch.config.load_config import load_config, shipped_configs
from edgesearch.config.schema import Config

__all__ = ["BudgetsSection", "Config", "load_config", "shipped_configs"]
