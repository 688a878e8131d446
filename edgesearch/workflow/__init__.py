"""The stages as functions: the Python API, one file for each command."""

from edgesearch.export import TensorRTTarget
from edgesearch.pretrain import Augmentation, Hardware, TrainerConfig
from edgesearch.search import Budgets, LatencyBudgets, Range, ScoreOptions
from edgesearch.workflow.bench import BenchedEngine, BenchResult, bench
from edgesearch.workflow.devices import DevicesResult, describe_devices
from edgesearch.workflow.evaluate import EvaluatedRow, EvaluateResult, evaluate
from edgesearch.workflow.evaluation import EvaluationSettings
from edgesearch.workflow.events import Event, Report
from edgesearch.workflow.export import export
from edgesearch.workflow.exported import ExportResult
from edgesearch.workflow.image_pool import ImageSource
from edgesearch.workflow.pretrain import PretrainResult, ViewOptions, pretrain
from edgesearch.workflow.profile import ProfileResult, profile
from edgesearch.workflow.rank import RankResult, RankSettings, rank
from edgesearch.workflow.run import RunResult, run
from edgesearch.workflow.search import SearchImages, SearchResult, search
from edgesearch.workflow.summary import SummaryRow, summarise
from edgesearch.workflow.table import TableResult, share_table
from edgesearch.workflow.validate import ValidatedNetwork, ValidateResult, validate
from edgesearch.workflow.winners import Winner, Winners
from profilers import MeasureConfig

__all__ = [
    "Augmentation",
    "BenchResult",
    "BenchedEngine",
    "Budgets",
    "DevicesResult",
    "EvaluateResult",
    "EvaluatedRow",
    "EvaluationSettings",
    "Event",
    "ExportResult",
    "Hardware",
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
    "TrainerConfig",
    "ValidateResult",
    "ValidatedNetwork",
    "ViewOptions",
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
