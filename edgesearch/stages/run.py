"""The four stages one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgesearch.data.image_pool import ImagePool
from edgesearch.events import silent
from edgesearch.export.exportable import buildable, check_batch, check_target
from edgesearch.export.exported import ExportResult
from edgesearch.run.layout import Layout
from edgesearch.run.stage import was_finished_with
from edgesearch.stages.export import export
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


def run(
    *,
    profile_arguments: Mapping[str, Any],
    pretrain_arguments: Mapping[str, Any],
    search_arguments: Mapping[str, Any],
    export_arguments: Mapping[str, Any],
    summary_arguments: Mapping[str, Any],
) -> RunResult:
    """Profile, pretrain, search and export; what is finished is skipped.

    Args:
        profile_arguments: Keyword arguments of `profile`.
        pretrain_arguments: Keyword arguments of `pretrain`.
        search_arguments: Keyword arguments of `search`.
        export_arguments: Keyword arguments of `export`.
        summary_arguments: Keyword arguments of `summarise`.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        UserError: What a stage raises.
    """
    _check_export(export_arguments)
    return RunResult(
        profile=profile(**profile_arguments),
        pretrain=pretrain(**pretrain_arguments),
        search=search(**search_arguments),
        export=export(**export_arguments),
        summary=summarise(**summary_arguments),
    )


def _check_export(export_arguments: Mapping[str, Any]) -> None:
    """Find out before the first stage what would stop the last one."""
    check_batch(export_arguments["device"], export_arguments.get("batch", "fixed"))
    tensorrt = buildable(export_arguments.get("tensorrt"), silent)
    engines = Layout(export_arguments["output_dir"]).engines
    if tensorrt is not None and not was_finished_with(engines, "export.tensorrt", asdict(tensorrt)):
        check_target(tensorrt)  # else these engines have been built
    channels = export_arguments["space"].in_channels
    pool = ImagePool(export_arguments["images"], channels, export_arguments.get("seed", 0))
    if export_arguments.get("output") == "logits":
        pool.require_labels()
