"""Command run: all four stages, and the final comparison."""

from __future__ import annotations

from dataclasses import dataclass

from edgesearch.run.context import RunContext
from edgesearch.stages.export import ExportResult, check_export, export
from edgesearch.stages.pretrain import PretrainResult, pretrain
from edgesearch.stages.profile import ProfileResult, profile
from edgesearch.stages.search import SearchResult, search
from edgesearch.stages.summary import SummaryRow, summarise


@dataclass(frozen=True)
class RunResult:
    """The results of all stages, and the final comparison."""

    profile: ProfileResult
    pretrain: PretrainResult
    search: SearchResult
    export: ExportResult
    summary: list[SummaryRow]


def run_all(run: RunContext) -> RunResult:
    """Run profile, pretrain, search and export; finished stages are skipped."""
    check_export(run)
    return RunResult(profile(run), pretrain(run), search(run), export(run), summarise(run))
