"""Stage search: from a supernet, images and a latency table to winners."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from devices import DeviceSpec
from devices.files import sha256_of
from edgesearch.data.image_pool import ImagePool, ImageSource
from edgesearch.errors import StageError
from edgesearch.events import Event, Report, silent, teller
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import TIMEOUT, check_same_in_all, tell_of_processes
from edgesearch.run.layout import Layout
from edgesearch.run.output_folder import digest_of, output_folder, read_json
from edgesearch.run.stage import RECORD, Stage, prefixed
from edgesearch.search.agreement import Agreement, ScoreOptions
from edgesearch.search.budgets import Budgets
from edgesearch.search.feasible import Tables
from edgesearch.search.scoring import SharedScores, make_agreement
from edgesearch.search.search_files import choose_winners, write_search
from edgesearch.search.strategies import BATCH, make_strategy
from edgesearch.search.trials import find_trials, says_where
from edgesearch.search.winners import Winners
from edgesearch.space import SearchSpace
from edgesearch.supernet.weights import SupernetWeights

OUTPUTS = (
    "trials.jsonl",
    "pareto.json",
    "pareto.png",
    "ranking.json",
    "chosen.json",
    "../winners.json",
)
WEIGHTS = "the supernet's weights"
"""What the weights are called among the inputs of stages."""


@dataclass(frozen=True)
class SearchImages:
    """Which images a search looks at.

    Attributes:
        images: Images on which agreement is computed, at most.
        calibration_images: Other images, for the normalisation statistics of each candidate.
        batch_size: Images in each forward pass.
    """

    images: int = 1024
    calibration_images: int = 1024
    batch_size: int = 128


@dataclass(frozen=True)
class SearchResult:
    """What the stage left behind.

    Attributes:
        winners: Winners and reserves, as in winners.json.
        plot_path: Picture of trials, fronts, budgets and winners.
        feasible: Number of architectures within the budgets.
        size: Number of architectures of the space.
        latency_budget_ms: Budget of the median latency: a number, several, or a section of min and
            max; None without one.
        latency_p95_budget_ms: That of its 95th percentile, alike.
        cannot_run: Number of architectures that the device cannot run; None if the search was
            finished by an earlier version, which did not count them.
        images: Images on which the winners were compared; None as above.
        settled: Whether their order is sure on these images; None as above.
        skipped: The stage had been finished before.
    """

    winners: Winners
    plot_path: Path
    feasible: int
    size: int
    latency_budget_ms: Any
    latency_p95_budget_ms: Any
    cannot_run: int | None
    images: int | None
    settled: bool | None
    skipped: bool


def search(
    *,
    space: SearchSpace,
    device: DeviceSpec,
    images: ImageSource,
    output_dir: Path,
    budgets: Budgets,
    latency_of_largest: float | tuple[float, ...] | None = None,
    further_devices: Sequence[DeviceSpec] = (),
    looked_at: SearchImages,
    scored_by: ScoreOptions = ScoreOptions(),  # noqa: B008 (frozen)
    strategy: str = "surrogate",
    evaluations: int = 200,
    population: int | None = None,
    candidates_at_once: int = BATCH,
    winners: int = 1,
    reserves: int = 10,
    seed: int = 0,
    threads: int | None = None,
    accept: Collection[str] = (),
    report: Report = silent,
) -> SearchResult:
    """Find the architectures of highest agreement within the budgets.

    Goes on from where it was stopped; does nothing if it is finished. Under `torchrun` the
    candidates of each batch are shared out among its processes; the first alone proposes them,
    writes and reports. With as many threads each, any number of processes comes to the same.

    Args:
        space: The search space.
        device: Its table has to have been measured.
        images: The target domain's images.
        output_dir: Has table and supernet; gets `search/` and `winners.json`.
        budgets: What the winners have to keep. With several of the latency, each has winners and
            reserves of its own, from one search.
        latency_of_largest: Bound on the median latency as a share of the largest network's, or
            several.
        further_devices: Those that `budgets.devices` names; their tables have to have been
            measured.
        looked_at: Which images are looked at.
        scored_by: What agreement is.
        strategy: "surrogate", "evolution", "tpe", "random" or "exhaustive".
        evaluations: Candidates that are scored.
        population: Of the evolution.
        candidates_at_once: Candidates in each batch.
        winners: How many to choose, for each budget.
        reserves: How many to keep in reserve, for each budget.
        seed: Of everything random.
        threads: Of torch; as many as it chooses if None.
        accept: Fields in which the table may differ from the device; see `load_table`.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        InfeasibleError: No architecture meets the budgets.
        ProcessFailed: Another process of the run has failed.
        UserError: Something is missing or does not fit.
    """
    layout = Layout(output_dir)
    wanted = {"winners": winners, "reserves": reserves}
    proposed_by: dict[str, Any] = {"evaluations": evaluations, "population": population}
    chosen_by = {"strategy": strategy, "candidates_at_once": candidates_at_once, **proposed_by}
    with distributed.processes(TIMEOUT, teller("search", report)):
        if distributed.rank() > 0:
            return _help(space, images, layout, looked_at, scored_by, seed, threads)
        with output_folder(output_dir):
            tables = Tables.load(layout, space, device, further_devices, accept, report)
            weights, pool, scored_on = _scored_with(space, images, layout, seed)
            settings = _scored_by(space, seed, images, looked_at, scored_by)
            stage = Stage(
                "search",
                layout.search,
                {
                    **settings,
                    "device": device.measured_fields,
                    **_bounds(budgets, latency_of_largest, further_devices),
                    **prefixed("search", {**chosen_by, **wanted}),
                },
                {**tables.digests, **scored_on},
            )
            if not distributed.of_first(stage.is_finished()):
                # Before `begin`, which may set a former search aside.
                feasible = tables.feasible(budgets, latency_of_largest)
                proposer = make_strategy(
                    strategy, feasible, **proposed_by, seed=seed, batch=candidates_at_once
                )
                scorer = _scorer(weights, pool, looked_at, scored_by, threads, report)
                distributed.of_all(None)  # none of the others refuses either
            done, message = stage.begin()
            if message:
                report(Event("search", message))
            if not done:
                score = {**settings, **scored_on}
                trials, ranked = find_trials(
                    scorer, feasible, proposer, score, evaluations, seed, layout, wanted, report
                )
                chosen = choose_winners(feasible, ranked, device.name, **wanted)
                chosen = replace(chosen, task=scored_by.task)
                write_search(layout, feasible, trials, chosen, device.name)
                stage.finish(OUTPUTS)
            return distributed.of_first(_result(layout, space, done))


def _result(layout: Layout, space: SearchSpace, skipped: bool) -> SearchResult:
    facts = read_json(layout.pareto, "search")
    ranking = read_json(layout.ranking, "search") if layout.ranking.exists() else {}
    return SearchResult(
        winners=Winners.load(layout.winners, space),
        plot_path=layout.pareto_plot,
        feasible=facts["feasible"],
        size=space.size,
        latency_budget_ms=facts["latency_budget_ms"],
        latency_p95_budget_ms=facts.get("latency_p95_budget_ms"),  # earlier versions wrote none
        cannot_run=facts.get("cannot_run"),
        images=ranking.get("images"),
        settled=ranking.get("settled"),
        skipped=skipped,
    )


def _scored_by(
    space: SearchSpace,
    seed: int,
    images: ImageSource,
    looked_at: SearchImages,
    options: ScoreOptions,
) -> dict[str, Any]:
    """The part of the configuration that scores depend on."""
    chosen = {**asdict(looked_at), **asdict(options)}
    values = {**prefixed("data", images.to_dict()), **prefixed("search", chosen)}
    return {"space": space.to_dict(), "seed": seed, **values}


def _bounds(
    budgets: Budgets,
    latency_of_largest: float | tuple[float, ...] | None,
    further_devices: Sequence[DeviceSpec],
) -> dict[str, Any]:
    """What is bounded, by the keys of the configuration."""
    values = asdict(budgets)
    further = values.pop("devices")
    for other in further_devices:
        values[f"devices.{other.name}"] = {**other.measured_fields, **further.get(other.name, {})}
    values["latency_of_largest"] = latency_of_largest
    return prefixed("search.budgets", values)


def _scored_with(
    space: SearchSpace, images: ImageSource, layout: Layout, seed: int
) -> tuple[SupernetWeights, ImagePool, dict[str, str]]:
    """The supernet and the images, and digests of both, which are the same in all processes."""
    weights = SupernetWeights.load(layout.weights, space)
    pool = ImagePool(images, space.in_channels, seed)
    digests = {WEIGHTS: sha256_of(layout.weights), "the set of images": pool.digest}
    check_same_in_all(digests)
    return weights, pool, digests


def _scorer(
    weights: SupernetWeights,
    pool: ImagePool,
    looked_at: SearchImages,
    scored_by: ScoreOptions,
    threads: int | None,
    report: Report,
) -> Agreement:
    torch.set_num_threads(threads or torch.get_num_threads())
    tell_of_processes("search", report)
    return make_agreement(weights, pool, looked_at, scored_by, report)


def _help(
    space: SearchSpace,
    images: ImageSource,
    layout: Layout,
    looked_at: SearchImages,
    scored_by: ScoreOptions,
    seed: int,
    threads: int | None,
) -> SearchResult:
    """Score what the first process hands out, and wait for its result."""
    weights, pool, _ = _scored_with(space, images, layout, seed)
    if not distributed.of_first(False):
        scorer = _scorer(weights, pool, looked_at, scored_by, threads, silent)
        distributed.of_all(None)
        with says_where(layout):
            SharedScores(scorer).help()
    return cast(SearchResult, distributed.of_first(None))


def check_searched_for(device: DeviceSpec, layout: Layout) -> None:
    """Refuse winners that were searched for another device, or in another supernet.

    Raises:
        StageError: Names what differs.
    """
    record = read_json(layout.search / RECORD, "search")
    if record["inputs"].get(WEIGHTS) != digest_of(layout.weights, "pretrain"):
        raise StageError(
            f"winners that were searched with the weights in {layout.weights}",
            "winners of other weights",
            "Run `edgesearch search` with the same configuration first.",
        )
    searched = record["config"]["device"]
    for field, wanted in device.measured_fields.items():
        found = searched.get(field)
        if wanted != found:
            raise StageError(
                f"winners for a device with {field} {wanted!r} in {layout.search}",
                f"winners for {field} {found!r}",
                "Run `edgesearch search` with the same configuration first.",
            )
