"""Stage search: from a supernet, images and a latency table to winners."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from devices import DeviceSpec
from edgesearch.errors import InfeasibleError, Interrupted, StageError
from edgesearch.export import sha256_of
from edgesearch.latency import LatencyModel
from edgesearch.search import (
    Agreement,
    Budgets,
    FeasibleSet,
    ScoreOptions,
    Strategy,
    Trial,
    TrialLog,
    make_strategy,
    pareto_front,
    run_search,
)
from edgesearch.space import SearchSpace
from edgesearch.supernet import SupernetWeights
from edgesearch.workflow.events import Event, Report, silent
from edgesearch.workflow.image_pool import ImagePool, ImageSource
from edgesearch.workflow.layout import Layout
from edgesearch.workflow.output_folder import digest_of, output_folder, read_json, write_json
from edgesearch.workflow.profile import current_correction, load_table, table_digest
from edgesearch.workflow.scoring import (
    choose_images,
    make_agreement,
    settle_winners,
    with_intervals,
)
from edgesearch.workflow.stage import RECORD, Stage, prefixed
from edgesearch.workflow.winners import Winner, Winners, from_trial

WEIGHTS = "the supernet's weights"
"""What the weights are called among the inputs of stages."""
OUTPUTS = ("trials.jsonl", "pareto.json", "ranking.json", "chosen.json", "../winners.json")


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
        feasible: Number of architectures within the budgets.
        size: Number of architectures of the space.
        latency_budget_ms: Budget of the median latency, None without one.
        latency_p95_budget_ms: Budget of its 95th percentile, None without one.
        cannot_run: Number of architectures that the device cannot run; None if the search was
            finished by an earlier version, which did not count them.
        images: Images on which the winners were compared; None as above.
        settled: Whether their order is sure on these images; None as above.
        skipped: The stage had been finished before.
    """

    winners: Winners
    feasible: int
    size: int
    latency_budget_ms: float | None
    latency_p95_budget_ms: float | None
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
    latency_of_largest: float | None = None,
    looked_at: SearchImages,
    scored_by: ScoreOptions = ScoreOptions(),  # noqa: B008 (frozen)
    strategy: str = "evolution",
    evaluations: int = 200,
    population: int | None = None,
    winners: int = 1,
    reserves: int = 10,
    seed: int = 0,
    threads: int | None = None,
    accept: Collection[str] = (),
    report: Report = silent,
) -> SearchResult:
    """Find the architectures of highest agreement within the budgets.

    Goes on from where it was stopped; does nothing if it is finished.

    Args:
        space: The search space.
        device: Its table has to have been measured.
        images: The target domain's images.
        output_dir: Has table and supernet; gets `search/` and `winners.json`.
        budgets: Upper bounds.
        latency_of_largest: Bound on the median latency as a share of the largest network's.
        looked_at: Which images are looked at.
        scored_by: What agreement is.
        strategy: "evolution" or "random".
        evaluations: Candidates that are scored.
        population: Of the evolution.
        winners: How many to choose.
        reserves: How many to keep in reserve.
        seed: Of everything random.
        threads: Of torch; as many as it chooses if None.
        accept: Fields in which the table may differ from the device; see `load_table`.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        InfeasibleError: No architecture meets the budgets.
        UserError: Something is missing or does not fit.
    """
    layout = Layout(output_dir)
    with output_folder(output_dir):
        table = load_table(layout.table(device), space, device, accept, "search", report)
        weights = SupernetWeights.load(layout.weights, space)
        pool = ImagePool(images, space.in_channels, seed)
        chosen_by = {
            "strategy": strategy,
            "evaluations": evaluations,
            "population": population,
            "winners": winners,
            "reserves": reserves,
        }
        stage = Stage(
            "search",
            layout.search,
            {
                "space": space.to_dict(),
                "device": device.measured_fields,
                "seed": seed,
                **prefixed("data", images.to_dict()),
                **prefixed("search.budgets", asdict(budgets)),
                "search.budgets.latency_of_largest": latency_of_largest,
                **prefixed("search", {**asdict(looked_at), **asdict(scored_by), **chosen_by}),
            },
            _inputs(layout, device, pool),
        )
        if not stage.is_finished():  # before `begin`, which may set a former search aside
            model = LatencyModel.from_table(space, table, current_correction(space, table))
            feasible = _feasible(model, budgets, latency_of_largest)
        done, message = stage.begin()
        if message:
            report(Event("search", message))
        if not done:
            torch.set_num_threads(threads or torch.get_num_threads())
            scorer = make_agreement(weights, pool, looked_at, scored_by, report)
            most = scorer.images
            choose_images(scorer, feasible, stage.folder / "images.json", seed, report)
            proposer = make_strategy(
                strategy, feasible, evaluations=evaluations, population=population, seed=seed
            )
            trials = _trials(feasible, proposer, scorer, stage, evaluations, report)
            trials, ranking = settle_winners(
                scorer, trials, winners, reserves, most, layout.ranking, report
            )
            chosen = _choose(feasible, trials, device.name, winners, reserves)
            chosen = replace(with_intervals(chosen, ranking), task=scored_by.task)
            _write(layout, chosen, trials, feasible, device.name)
            stage.finish(OUTPUTS)
        return _result(layout, space, done)


def _result(layout: Layout, space: SearchSpace, skipped: bool) -> SearchResult:
    facts = read_json(layout.pareto, "search")
    ranking = read_json(layout.ranking, "search") if layout.ranking.exists() else {}
    return SearchResult(
        winners=Winners.load(layout.winners, space),
        feasible=facts["feasible"],
        size=space.size,
        latency_budget_ms=facts["latency_budget_ms"],
        latency_p95_budget_ms=facts.get("latency_p95_budget_ms"),  # earlier versions wrote none
        cannot_run=facts.get("cannot_run"),
        images=ranking.get("images"),
        settled=ranking.get("settled"),
        skipped=skipped,
    )


def _feasible(
    model: LatencyModel, budgets: Budgets, latency_of_largest: float | None
) -> FeasibleSet:
    """What is within the budgets, the latency given in ms or as a share of the largest's."""
    if latency_of_largest is not None:
        largest_ms = model.predict(model.space.largest).median_ms
        if not math.isfinite(largest_ms):
            raise InfeasibleError(
                "a largest network that the device can run, for search.budgets.latency_of_largest",
                f"{model.space.largest}, which has blocks that the device cannot run",
                "Set search.budgets.latency_ms instead, or choose a smaller space.",
            )
        budgets = replace(budgets, latency_ms=latency_of_largest * largest_ms)
    return FeasibleSet(model.space, model.predict_all(), budgets, model.correction.p95_ratio)


def _inputs(layout: Layout, device: DeviceSpec, pool: ImagePool) -> dict[str, str]:
    """Digests of what the scores depend on."""
    table = layout.table(device)
    return {
        f"the latency table {table.name}": table_digest(table),
        WEIGHTS: sha256_of(layout.weights),
        "the set of images": pool.digest,
    }


def _trials(
    feasible: FeasibleSet,
    proposer: Strategy,
    scorer: Agreement,
    stage: Stage,
    evaluations: int,
    report: Report,
) -> list[Trial]:
    """The trials of a search, best first; those that the log knows are not made again."""
    identity = {**stage.inputs, "number of images": scorer.images}
    log = TrialLog(stage.folder / "trials.jsonl", identity)

    def tell(number: int, trial: Trial) -> None:
        text = f"agreement {trial.agreement:.4f} at {trial.latency_ms:.3f} ms predicted"
        report(Event("search", text, number, evaluations))

    try:
        return run_search(feasible, proposer, scorer, log, evaluations, tell)
    except KeyboardInterrupt:
        raise Interrupted(f"search stopped; its trials are in {log.path}") from None


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


def _choose(
    feasible: FeasibleSet, trials: list[Trial], device: str, winners: int, reserves: int
) -> Winners:
    def ranked(letter: str, chosen: list[Trial]) -> tuple[Winner, ...]:
        return tuple(
            from_trial(
                f"{letter}{i}",
                trial,
                device,
                predicted_p95_ms=feasible.cost("latency_p95_ms", trial.architecture),
                budgets=feasible.budgets,
            )
            for i, trial in enumerate(chosen)
        )

    space, last = feasible.space, winners + reserves
    return Winners(
        space.name,
        space.space_hash,
        ranked("w", trials[:winners]),
        ranked("r", trials[winners:last]),
    )


def _write(
    layout: Layout, chosen: Winners, trials: list[Trial], feasible: FeasibleSet, device: str
) -> None:
    facts = {
        "device": device,
        "feasible": len(feasible.indices),
        "cannot_run": feasible.cannot_run,
        "latency_budget_ms": feasible.budgets.latency_ms,
        "latency_p95_budget_ms": feasible.budgets.latency_p95_ms,
        "front": [trial.to_dict() for trial in pareto_front(trials)],
    }
    write_json(layout.pareto, facts)
    chosen.save(layout.chosen)
    chosen.save(layout.winners)
