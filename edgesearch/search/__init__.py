"""The label-free search for subnets within budgets."""

from edgesearch.search.agreement import Agreement
from edgesearch.search.budgets import Bound, Budgets, LatencyBudgets, Range
from edgesearch.search.constraints import DeviceLatencies, FeasibleSet
from edgesearch.search.search import pareto_front, run_search
from edgesearch.search.strategies import BATCH, Strategy, make_strategy
from edgesearch.search.trial_log import Trial, TrialLog

__all__ = [
    "BATCH",
    "Agreement",
    "Bound",
    "Budgets",
    "DeviceLatencies",
    "FeasibleSet",
    "LatencyBudgets",
    "Range",
    "Strategy",
    "Trial",
    "TrialLog",
    "make_strategy",
    "pareto_front",
    "run_search",
]
