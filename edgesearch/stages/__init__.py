"""The stages as functions: the Python API, one file for each command."""

from edgesearch.data.image_pool import ImageSource
from edgesearch.evaluate.judge import EvaluationSettings
from edgesearch.events import Event, Report
from edgesearch.export.engines import TensorRTTarget
from edgesearch.export.exported import ExportResult
from edgesearch.search.agreement import ScoreOptions
from edgesearch.search.budgets import Budgets, LatencyBudgets, Range
from edgesearch.search.winners import Winner, Winners
from edgesearch.stages.bench import BenchedEngine, BenchResult, bench
from edgesearch.stages.devices import DevicesResult, describe_devices
from edgesearch.stages.evaluate import EvaluatedRow, EvaluateResult, evaluate
from edgesearch.stages.export import export
from edgesearch.stages.pretrain import PretrainResult, pretrain
from edgesearch.stages.profile import ProfileResult, profile
from edgesearch.stages.rank import RankResult, RankSettings, rank
from edgesearch.stages.run import RunResult, run
from edgesearch.stages.search import SearchImages, SearchResult, search
from edgesearch.stages.summary import SummaryRow, summarise
from edgesearch.stages.table import TableResult, share_table
from edgesearch.stages.validate import ValidatedNetwork, ValidateResult, validate
from profilers import MeasureConfig

__all__ = [
    "BenchResult",
    "BenchedEngine",
    "Budgets",
    "DevicesResult",
    "EvaluateResult",
    "EvaluatedRow",
    "EvaluationSettings",
    "Event",
    "ExportResult",
    "ImageSource",
    "LatencyBudgets",
    "MeasureConfig",
    "PretrainResult",
    "ProfileResult",
    "Range",
    "RankResult",
    "RankSettings",
    "Report",
    "RunResult",
    "ScoreOptions",
    "SearchImages",
    "SearchResult",
    "SummaryRow",
    "TableResult",
    "TensorRTTarget",
    "ValidateResult",
    "ValidatedNetwork",
    "Winner",
    "Winners",
    "bench",
    "describe_devices",
    "evaluate",
    "export",
    "pretrain",
    "profile",
    "rank",
    "run",
    "search",
    "share_table",
    "summarise",
    "validate",
]
