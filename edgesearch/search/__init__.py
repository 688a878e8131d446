"""The label-free search for subnets within budgets."""

from edgesearch.search.agreement import Agreement, ScoreOptions, run_network
from edgesearch.search.beginnings import Outputs
from edgesearch.search.budgets import Bound, Budgets, LatencyBudgets, Range
from edgesearch.search.constraints import DeviceLatencies, FeasibleSet
from edgesearch.search.images_needed import ImagesNeeded, ScoresOn, find_images_needed
from edgesearch.search.ranking import (
    DomainComparison,
    Interval,
    Leader,
    Ranking,
    compare_domains,
    settle,
)
from edgesearch.search.score_variants import ScoreVariants
from edgesearch.search.search import pareto_front, run_search
from edgesearch.search.strategies import BATCH, Strategy, make_strategy
from edgesearch.search.trial_log import Trial, TrialLog

__all__ = [
    "BATCH",
    "Agreement",
    "Bound",
    "Budgets",
    "DeviceLatencies",
    "DomainComparison",
    "FeasibleSet",
    "ImagesNeeded",
    "Interval",
    "LatencyBudgets",
    "Leader",
    "Outputs",
    "Range",
    "Ranking",
    "ScoreOptions",
    "ScoreVariants",
    "ScoresOn",
    "Strategy",
    "Trial",
    "TrialLog",
    "compare_domains",
    "find_images_needed",
    "make_strategy",
    "pareto_front",
    "run_network",
    "run_search",
    "settle",
]
