"""Loads a finished export; the error when reserves run out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesearch.errors import ExportError, StageError
from edgesearch.export.manifest import read_manifest
from edgesearch.latency.budgets import describe_broken, describe_budgets
from edgesearch.run.layout import Layout
from edgesearch.search.winners import Winner, Winners
from edgesearch.space import Architecture, SearchSpace


@dataclass(frozen=True)
class ExportResult:
    """What the stage left behind.

    Attributes:
        winners: With measured latencies, as in winners.json.
        folders: The folder of each winner.
        manifests: The manifest of each winner.
        skipped: The stage had been finished before.
    """

    winners: Winners
    folders: tuple[Path, ...]
    manifests: tuple[dict[str, Any], ...]
    skipped: bool


def unjudged(files: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Which of a manifest's files were not judged by something, one text for each reason."""
    found: dict[str, list[str]] = {}
    for name, about in files.items():
        if "knn_note" in about:
            found.setdefault(about["knn_note"], []).append(name)
    return tuple(f"{', '.join(names)}: {note}" for note, names in found.items())


def published(layout: Layout, space: SearchSpace) -> Winners:
    """The winners as measured; winners.json is made to say the same."""
    winners = Winners.load(layout.measured, space)
    # A search that was done again and chose the same has written them without latencies.
    found = layout.winners.read_bytes() if layout.winners.exists() else b""
    if found != layout.measured.read_bytes():
        winners.save(layout.winners)
    return winners


def export_result(layout: Layout, space: SearchSpace, skipped: bool) -> ExportResult:
    """What a finished stage left behind."""
    winners = published(layout, space)
    folders = tuple(layout.engines / winner.name for winner in winners.winners)
    return ExportResult(winners, folders, tuple(map(read_manifest, folders)), skipped)


def intact(layout: Layout, space: SearchSpace) -> bool:
    """Whether all files that the winners' manifests list are as they were written."""
    try:
        for winner in Winners.load(layout.measured, space).winners:
            read_manifest(layout.engines / winner.name)
    except (ExportError, StageError):
        return False
    return True


def architectures(winners: Sequence[Winner]) -> set[Architecture]:
    """The architectures of winners."""
    return {winner.architecture for winner in winners}


def nothing_left(winner: Winner, replaced: list[dict[str, Any]], device: str) -> ExportError:
    """The error where no reserve is fast enough, with the numbers of all that were tried."""
    wanted = describe_budgets(winner.latency_ms[device])
    tried = "; ".join(
        f"{former['name']}: {describe_broken(former['latency_ms'][device])}" for former in replaced
    )
    return ExportError(
        f"a subnet for {winner.name} with {wanted} on {device}",
        f"{len(replaced)} candidate(s) that are too slow ({tried}), and no further reserve is "
        "predicted to be fast enough or may be tried",
        "The correction has been updated: set more search.reserves and export.max_replacements, or "
        "a higher budget. If the machine was busy, run the same command again when it is idle.",
    )
