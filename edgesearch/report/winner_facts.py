"""The winners of a run: latencies, blocks, files, and the images that they find alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesearch.errors import UserError
from edgesearch.export.manifest import read_manifest
from edgesearch.latency.budgets import broken_budgets, fits_as_measured
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.report.device_facts import DeviceFacts
from edgesearch.report.neighbours import Neighbours, find_neighbours
from edgesearch.run.context import RunContext
from edgesearch.search.winners import Winner, Winners


@dataclass(frozen=True)
class BlockFacts:
    """A block of a winner.

    Attributes:
        part: Name of its stage, or "stem" or "head".
        latency_ms: Its part of the predicted median; None without a latency table.
        share: That of the whole network's, in 0 … 1.
    """

    part: str
    key: str
    out_shape: tuple[int, ...]
    macs: int
    params: int
    latency_ms: float | None
    share: float | None


@dataclass(frozen=True)
class WinnerFacts:
    """A winner.

    Attributes:
        figures: Latency figures on the run's own device, as in winners.json.
        verdict: "within", "within its interval", "over" or "predicted".
        offset_ms: Predicted cost of the network beyond its blocks, that of a task's head included;
            None without a table.
        latency_of: What latencies are of: "backbone", or "whole model" with its head.
        manifest: None if it was not exported, or its files have changed.
        problem: Why there is no manifest; empty if it was not exported yet.
        neighbours: None without exported weights or images.
        no_neighbours: Why there are none.
    """

    winner: Winner
    figures: Mapping[str, Any]
    verdict: str
    folder: Path
    blocks: tuple[BlockFacts, ...]
    offset_ms: float | None
    latency_of: str
    manifest: dict[str, Any] | None
    problem: str
    neighbours: Neighbours | None
    no_neighbours: str

    @property
    def parts(self) -> dict[str, list[BlockFacts]]:
        """Its blocks by stage."""
        found: dict[str, list[BlockFacts]] = {}
        for block in self.blocks:
            found.setdefault(block.part, []).append(block)
        return found


def read_winners(
    run: RunContext, winners: Winners, devices: Mapping[str, DeviceFacts]
) -> tuple[WinnerFacts, ...]:
    """What is known of each winner."""
    own = devices.get(run.device.name)
    model = None if own is None else own.model
    return tuple(_read(run, winner, model) for winner in winners.winners)


def _read(run: RunContext, winner: Winner, model: LatencyModel | None) -> WinnerFacts:
    folder = run.files.engines / winner.name
    figures = winner.latency_ms[run.device.name]
    manifest, problem, neighbours, no_neighbours = None, "", None, ""
    if folder.exists():
        try:
            manifest = read_manifest(folder)
        except UserError as error:
            problem = f"required: {error.required}; found: {error.found}. {error.remedy}"
    if manifest is not None and manifest["winner"]["architecture"] != dict(winner.architecture):
        other = manifest["winner"]["name"]
        manifest, problem = None, f"the files are those of a former {other}: export again"
    if manifest is not None:
        try:
            neighbours = find_neighbours(run, folder)
        except UserError as error:
            no_neighbours = f"{error.found}. {error.remedy}"
    return WinnerFacts(
        winner=winner,
        figures=figures,
        verdict=_verdict(figures),
        folder=folder,
        blocks=_blocks(run, winner, model),
        offset_ms=None if model is None else model.offset_ms + model.head_ms(winner.architecture),
        latency_of="backbone" if model is None else model.about,
        manifest=manifest,
        problem=problem,
        neighbours=neighbours,
        no_neighbours=no_neighbours,
    )


def _verdict(figures: Mapping[str, Any]) -> str:
    if "interval" not in figures:
        return "predicted"
    if broken_budgets(figures):
        return "over"
    return "within" if fits_as_measured(figures) else "within its interval"


def _blocks(run: RunContext, winner: Winner, model: LatencyModel | None) -> tuple[BlockFacts, ...]:
    space, architecture = run.space, winner.architecture
    blocks = space.blocks(architecture)
    costs_ms: list[float | None] = [None] * len(blocks)
    if model is not None:
        costs_ms = [ms if math.isfinite(ms) else None for ms in model.block_costs_ms(architecture)]
    total_ms = sum(ms for ms in costs_ms if ms is not None)
    names = [
        part.stage
        for part, own in zip(space.parts, space.blocks_of_parts(architecture), strict=True)
        for _ in own
    ]
    return tuple(
        BlockFacts(
            part=name or ("stem" if block.is_first else "head"),
            key=block.key,
            out_shape=block.out_shape,
            macs=block.macs,
            params=block.params,
            latency_ms=latency_ms,
            share=None if latency_ms is None or not total_ms else latency_ms / total_ms,
        )
        for name, block, latency_ms in zip(names, blocks, costs_ms, strict=True)
    )
