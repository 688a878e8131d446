"""Command run: the four stages one after the other, and the closing comparison."""

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
    """What the stages left behind, and the closing comparison."""

    profile: ProfileResult
    pretrain: PretrainResult
    search: SearchResult
    export: ExportResult
    summary: list[SummaryRow]


def run_all(run: RunContext) -> RunResult:
    """Profile, pretrain, search and export; what is finished is skipped.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        UserError: What a stage raises.
    """
    check_export(run)
    return RunResult(profile(run), pretrain(run), search(run), export(run), summarise(run))
