"""The stages as functions: the Python API, one file for each command."""

from edgesearch.workflow.events import Event, Report
from edgesearch.workflow.export import ExportResult, export
from edgesearch.workflow.image_pool import ImageSource
from edgesearch.workflow.pretrain import PretrainResult, pretrain
from edgesearch.workflow.profile import ProfileResult, profile
from edgesearch.workflow.run import RunResult, run
from edgesearch.workflow.search import SearchImages, SearchResult, search
from edgesearch.workflow.summary import SummaryRow, summarise
from edgesearch.workflow.winners import Winner, Winners

__all__ = [
    "Event",
    "ExportResult",
    "ImageSource",
    "PretrainResult",
    "ProfileResult",
    "Report",
    "RunResult",
    "SearchImages",
    "SearchResult",
    "SummaryRow",
    "Winner",
    "Winners",
    "export",
    "pretrain",
    "profile",
    "run",
    "search",
    "summarise",
]
