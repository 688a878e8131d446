"""Stage search: from a supernet, images and a latency table to winners."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from devices import DeviceSpec
from edgesearch.errors import Interrupted
from edgesearch.export import sha256_of
from edgesearch.latency import LatencyModel
from edgesearch.search import (
    Agreement,
    Budgets,
    FeasibleSet,
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
from edgesearch.workflow.output_folder import output_folder, write_json
from edgesearch.workflow.profile import current_correction, load_table, table_digest
from edgesearch.workflow.stage import Stage
from edgesearch.workflow.winners import Winners, from_trial


@dataclass(frozen=True)
class SearchImages:
    """Which images a search looks at.

    Attributes:
        images: Images on which agreement is computed.
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
        latency_budget_ms: Budget of the latency, None without one.
        skipped: The stage had been finished before.
    """

    winners: Winners
    feasible: int
    size: int
    latency_budget_ms: float | None
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
    strategy: str = "evolution",
    evaluations: int = 200,
    population: int | None = None,
    winners: int = 1,
    reserves: int = 10,
    seed: int = 0,
    threads: int | None = None,
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
        latency_of_largest: Bound on the latency as a share of the largest network's.
        looked_at: Which images are looked at.
        strategy: "evolution" or "random".
        evaluations: Candidates that are scored.
        population: Of the evolution.
        winners: How many to choose.
        reserves: How many to keep in reserve.
        seed: Of everything random.
        threads: Of torch; as many as it chooses if None.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        InfeasibleError: No architecture meets the budgets.
        UserError: Something is missing or does not fit.
    """
    with output_folder(output_dir):
        layout = Layout(output_dir)
        table_file = layout.table(device)
        table = load_table(table_file, space, device)
        weights = SupernetWeights.load(layout.weights, space)
        pool = ImagePool(images, space.in_channels, seed)
        stage = Stage(
            "search",
            layout.search,
            {
                "space": space.to_dict(),
                "seed": seed,
                **{f"data.{k}": v for k, v in asdict(images).items() if k != "root"},
                "device": device.to_dict(),
                **{f"search.budgets.{k}": v for k, v in asdict(budgets).items()},
                "search.budgets.latency_of_largest": latency_of_largest,
                **{f"search.{k}": v for k, v in asdict(looked_at).items()},
                "search.strategy": strategy,
                "search.evaluations": evaluations,
                "search.population": population,
                "search.winners": winners,
                "search.reserves": reserves,
            },
            {
                table_file.name: table_digest(table_file),
                "the supernet's weights": sha256_of(layout.weights),
                "the set of training images": pool.digest,
            },
        )
        model = LatencyModel.from_table(space, table, current_correction(space, table))
        if latency_of_largest is not None:
            largest_ms = model.predict(space.largest).median_ms
            budgets = replace(budgets, latency_ms=latency_of_largest * largest_ms)
        feasible = FeasibleSet(space, model.predict_all(), budgets)
        done, message = stage.begin()
        if message:
            report(Event("search", message))
        if not done:
            torch.set_num_threads(threads or torch.get_num_threads())
            proposer = make_strategy(
                strategy, feasible, evaluations=evaluations, population=population, seed=seed
            )
            scorer = make_agreement(weights, pool, looked_at)
            log = TrialLog(layout.trials, stage.inputs)
            try:
                trials = run_search(
                    feasible,
                    proposer,
                    scorer,
                    log,
                    evaluations,
                    lambda number, trial: report(_trial_event(number, trial, evaluations)),
                )
            except KeyboardInterrupt:
                raise Interrupted(f"search stopped; its trials are in {log.path}") from None
            chosen = _choose(space, trials, device.name, budgets.latency_ms, winners, reserves)
            front = [trial.to_dict() for trial in pareto_front(trials)]
            write_json(stage.folder / "pareto.json", {"device": device.name, "front": front})
            chosen.save(layout.chosen)
            chosen.save(layout.winners)
            stage.finish(["trials.jsonl", "pareto.json", "chosen.json", "../winners.json"])
        return SearchResult(
            Winners.load(layout.winners, space),
            len(feasible.indices),
            space.size,
            budgets.latency_ms,
            done,
        )


def make_agreement(
    weights: SupernetWeights, pool: ImagePool, looked_at: SearchImages
) -> Agreement:
    """The score, on the images that follow those of the calibration."""
    calibration, count = looked_at.calibration_images, looked_at.images
    first = calibration if calibration + count <= len(pool.train) else 0
    return Agreement(
        weights,
        images_at=lambda resolution: pool.sample(resolution, first, count),
        calibration_at=lambda resolution: pool.sample(resolution, 0, calibration),
        batch_size=looked_at.batch_size,
    )


def _choose(
    space: SearchSpace,
    trials: list[Trial],
    device: str,
    budget_ms: float | None,
    winners: int,
    reserves: int,
) -> Winners:
    ranked = trials[: winners + reserves]
    return Winners(
        space.name,
        space.space_hash,
        tuple(
            from_trial(f"w{i}", trial, device, budget_ms)
            for i, trial in enumerate(ranked[:winners])
        ),
        tuple(
            from_trial(f"r{i}", trial, device, budget_ms)
            for i, trial in enumerate(ranked[winners:])
        ),
    )


def _trial_event(number: int, trial: Trial, evaluations: int) -> Event:
    text: Any = f"agreement {trial.agreement:.4f} at {trial.latency_ms:.3f} ms predicted"
    return Event("search", text, number, evaluations)
