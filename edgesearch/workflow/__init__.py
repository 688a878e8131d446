"""The stages as functions: the Python API, one file for each command."""

from edgesearch.events import Event, Report
from edgesearch.export.engines import TensorRTTarget
from edgesearch.pretrain.hardware import Hardware
from edgesearch.pretrain.trainer_config import TrainerConfig
from edgesearch.pretrain.views import Augmentation
from edgesearch.search.agreement import ScoreOptions
from edgesearch.search.budgets import Budgets, LatencyBudgets, Range
from edgesearch.workflow.bench import BenchedEngine, BenchResult, bench
from edgesearch.workflow.devices import DevicesResult, describe_devices
from edgesearch.workflow.evaluate import EvaluatedRow, EvaluateResult, evaluate
from edgesearch.workflow.evaluation import EvaluationSettings
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
