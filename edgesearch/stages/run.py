"""Command run: all stages, the final comparison and the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgesearch.run.context import RunContext
from edgesearch.stages.export import ExportResult, export
from edgesearch.stages.finetune import FinetuneResult, finetune
from edgesearch.stages.plan import check_run, tell_plan
from edgesearch.stages.pretrain import PretrainResult, pretrain
from edgesearch.stages.profile import ProfileResult, is_fitted, is_profiled, profile, table_of
from edgesearch.stages.report import refresh_report
from edgesearch.stages.search import SearchResult, check_search, search
from edgesearch.stages.summary import LabelledCounts, SummaryRow, summarise


@dataclass(frozen=True)
class RunResult:
    """The results of all stages, and the final comparison.

    Attributes:
        training_doubt: Why the supernet seems hardly trained; empty otherwise.
        finetune: None without a task (`finetune.task`).
        report_path: The page that shows the run.
        labelled: What the kNN accuracies of the comparison were computed on; None without labels.
    """

    profile: ProfileResult
    pretrain: PretrainResult
    search: SearchResult
    finetune: FinetuneResult | None
    export: ExportResult
    summary: list[SummaryRow]
    labelled: LabelledCounts | None
    training_doubt: str
    report_path: Path


def run_all(run: RunContext, *, anew: bool = False) -> RunResult:
    """Run profile, pretrain, search, finetune and export; finished stages are skipped.

    Fine-tuning is left out without a task.

    What can refuse a stage is checked as soon as it is known: before the first stage, and what
    depends on the latency table before the supernet is trained.

    Args:
        run: The run.
        anew: Set aside output of other settings or inputs even if it took long.
    """
    with run.one_pool():
        check_run(run, anew)
        table = table_of(run)
        known = is_profiled(run, table) and is_fitted(run, table)
        if known:
            check_search(run, profiled=True)
        tell_plan(run)
        profiled = profile(run)
        if not known:
            check_search(run, profiled=True)
        pretrained, searched = pretrain(run, anew=anew), search(run, anew=anew)
        with_task = run.config.finetune.task is not None
        finetuned = finetune(run, anew=anew) if with_task else None
        exported, summary = export(run, anew=anew), summarise(run)
        doubt = summary.training_doubt
        return RunResult(
            profiled,
            pretrained,
            searched,
            finetuned,
            exported,
            summary.rows,
            summary.labelled,
            searched.training_doubt if doubt is None else doubt,
            refresh_report(run),
        )
