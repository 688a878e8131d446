"""Stage search: finds winners with the supernet, images and latency tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from devices.files import sha256_of, write_json
from devices.values import in_yaml
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import StageError
from edgesearch.events import silent
from edgesearch.inputs import read_json
from edgesearch.latency.latency_model import about_latencies
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import TIMEOUT, check_same_in_all, report_processes
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.files import RECORD
from edgesearch.run.room import check_memory
from edgesearch.run.stage import Stage, read_record, tell_if_outdated
from edgesearch.search.agreement import (
    Agreement,
    images_of_score,
    labelled_images_of_score,
    stages_compared,
)
from edgesearch.search.costs import Costs, DeviceLatencies
from edgesearch.search.feasible import find_feasible
from edgesearch.search.search import Search, SharedScores, says_where
from edgesearch.search.strategies.strategy import make_strategy
from edgesearch.search.tables import Tables, load_further
from edgesearch.search.training_doubt import LABELLED, TrainingCheck, check_training
from edgesearch.search.winners import Winners
from edgesearch.stages.evaluate import make_judge
from edgesearch.stages.scorer import check_scorer, inputs_of_score, make_scorer
from edgesearch.supernet.weights import SupernetWeights
from edgesearch.training.allocator import memory_kept

OUTPUTS = (
    "trials.jsonl",
    "pareto.json",
    "pareto.png",
    "ranking.json",
    "chosen.json",
    "training.json",
)
WINNERS = "the winners of the search"
"""Name of the stage's output in the records of others."""


@dataclass(frozen=True)
class SearchResult:
    """Result of `search`.

    Attributes:
        feasible: Number of architectures within any of the budgets.
        feasible_each: Number within each latency budget, in their order.
        budgets: All bounds in words.
        latency_of: What latencies and budgets are of: "backbone", or "whole model" with its head.
        latency_budget_ms: Budget of the median latency: a number, a list, or a dict with min and
            max; None if unbounded.
        latency_p95_budget_ms: Budget of the 95th percentile: a number or a dict with min and max;
            None if unbounded.
        estimated_from: Sample size that these numbers are estimated from; None if they are exact.
        settled: Whether the order of the winners is statistically certain.
        doubts: Why predicted latencies of a device cannot be trusted, by its name.
        training_doubt: Why the supernet seems hardly trained; empty otherwise.
        ranking_doubt: Why the candidates are too alike to be ranked; empty otherwise.
    """

    winners: Winners
    plot_path: Path
    feasible: int
    feasible_each: tuple[int, ...]
    size: int
    budgets: tuple[str, ...]
    latency_of: str
    latency_budget_ms: Any
    latency_p95_budget_ms: Any
    cannot_run: int
    estimated_from: int | None
    images: int
    settled: bool
    training_doubt: str
    ranking_doubt: str
    skipped: bool
    doubts: dict[str, str]


def search(run: RunContext, *, anew: bool = False) -> SearchResult:
    """Find the architectures of highest agreement within the budgets.

    Writes `search/` and `winners.json`. Resumes where it was stopped; does nothing if finished.
    Under `torchrun` the processes share the candidates of each batch; only the first proposes,
    writes and reports. The result does not depend on the number of processes if each has the same
    number of threads.

    Args:
        run: The run.
        anew: Set aside a search with other scores even if it was long. (Where only budgets or the
            strategy differ, its scores are used again.)

    Raises:
        InfeasibleError: No architecture meets the budgets.
        StageError: Without `anew`, there is such a search.
    """
    with distributed.processes(TIMEOUT, run.teller("search")):
        if distributed.rank() > 0:
            return _help(run)
        with run.writing():
            check_memory(run, run.config.search.batch_size)
            tables = tables_of(run)
            weights, pool, inputs = _scored_with(run)
            tell_if_outdated(
                run, "search", "pretrain", run.files.supernet, run.decisive("pretrain")
            )
            scored = {**run.decisive("score"), **inputs}
            stage = search_stage(run, tables, inputs)

            def prepare() -> tuple[Search, SharedScores]:
                feasible = tables.feasible(run.config.search.budgets)
                scorer = _scorer(run, weights, pool)
                scores = SharedScores(scorer)
                search = Search(
                    feasible,
                    run.config.search,
                    run.files.search,
                    scores,
                    first_images=scorer.batch_size,
                    most_images=scorer.images,
                    scored_with=scored,
                    seed=run.config.seed,
                    report=run.report,
                )
                return search, scores

            def work(prepared: tuple[Search, SharedScores]) -> Sequence[str]:
                search, scores = prepared
                search.run()
                scores.done()
                check = check_training(scores.agreement, make_judge(run, pool, LABELLED))
                write_json(run.files.search.training, asdict(check))
                return OUTPUTS

            skipped = stage.do(run, prepare, work, anew=anew)
            return distributed.of_first(_result(run, skipped, tables.doubts))


def search_stage(run: RunContext, tables: Tables, inputs: Mapping[str, str]) -> Stage:
    """The stage with everything that the winners depend on; `inputs` are supernet and images."""
    scored = {**run.decisive("score"), **inputs}
    settings = run.decisive("device", "search", "score")
    return Stage(
        "search",
        run.files.search.folder,
        settings,
        {**tables.digests, **inputs},
        cheap={*settings, *tables.digests} - {*scored},
    )


def check_search(run: RunContext, profiled: bool) -> None:
    """Check what can be known about a search before the supernet is trained.

    Args:
        run: The run.
        profiled: Whether the device's table is complete; without it, only budgets that do not
            depend on it are checked.

    Raises:
        UserError: The search would be refused.
    """
    settings, pool = run.config.search, run.open_images()
    check_memory(run, settings.batch_size)
    if settings.score == "labels":
        labelled_images_of_score(pool, settings)
    else:
        images_of_score(len(pool.train), settings)
    stages_compared(run.space, settings)
    check_scorer(run)
    if not profiled:
        further, accept = settings.budgets.further_devices(), run.config.profile.accept
        load_further(run.files.table, run.space, further.values(), accept, head=run.head)
        unknown = DeviceLatencies(run.space.sums(lambda block: 0.0), 1.0)
        find_feasible(Costs(run.space, run.device, unknown), settings.budgets.without_latency())
        return
    feasible = tables_of(run).feasible(settings.budgets)
    make_strategy(feasible, settings, run.config.seed)
    words = "; ".join(feasible.budgets.words()) or "none"
    medians_ms = feasible.rows["latency_ms"][feasible.rows.runnable]
    known = "" if feasible.count.drawn is None else " those drawn of"
    each = ""
    if len(feasible.parts) > 1:
        counts = (str(part.count).partition(" of ")[0] for part in feasible.parts)
        each = f", {', '.join(counts)} within each"
    text = (
        f"{feasible.count} architectures are within the budgets ({words}){each}; predicted medians "
        f"of{known} the space: {medians_ms.min():.3f} to {medians_ms.max():.3f} ms{_of(run)}"
    )
    if feasible.count.number == run.space.size and feasible.budgets.words():
        text += "; the budgets exclude none"
    run.teller("search")(text)


def _of(run: RunContext) -> str:
    """What latencies are of, where that is not just the network that is searched."""
    return "" if run.head is None else f" (latencies of the {about_latencies(run.head)})"


def tables_of(run: RunContext) -> Tables:
    """The latency tables of the search; see `Tables.load`."""
    return Tables.load(
        run.files.table,
        run.space,
        run.device,
        run.config.search.budgets.further_devices().values(),
        run.config.profile.accept,
        run.report,
        run.head,
    )


def _result(run: RunContext, skipped: bool, doubts: dict[str, str]) -> SearchResult:
    facts = read_json(run.files.search.pareto, "search")
    ranking = read_json(run.files.search.ranking, "search")
    check = TrainingCheck(**read_json(run.files.search.training, "search"))
    return SearchResult(
        winners=_published(run),
        plot_path=run.files.search.pareto_plot,
        feasible=facts["feasible"],
        feasible_each=tuple(facts["feasible_each"]),
        size=run.space.size,
        budgets=tuple(facts["bounds"]),
        latency_of=about_latencies(run.head),
        latency_budget_ms=facts["latency_budget_ms"],
        latency_p95_budget_ms=facts["latency_p95_budget_ms"],
        cannot_run=facts["cannot_run"],
        estimated_from=facts["estimated_from"],
        images=ranking["images"],
        settled=ranking["settled"],
        training_doubt=check.doubt,
        ranking_doubt=ranking["doubt"],
        skipped=skipped,
        doubts=doubts,
    )


def _published(run: RunContext) -> Winners:
    """The winners of the search; winners.json is written unless it has them, perhaps measured."""
    files, chosen = run.files, run.files.search.chosen
    exported = read_record(files.engines) or {"inputs": {}}
    measured = exported["inputs"].get(WINNERS) == sha256_of(chosen) and files.measured.exists()
    found = files.winners.read_bytes() if files.winners.exists() else b""
    if found == chosen.read_bytes() or (measured and found == files.measured.read_bytes()):
        return Winners.load(files.winners, run.space)
    winners = Winners.load(chosen, run.space)
    if run.may_write:
        winners.save(files.winners)
    return winners


def _scored_with(run: RunContext) -> tuple[SupernetWeights, ImagePool, dict[str, str]]:
    """The supernet, the images, and digests of both; checks that all processes have the same."""
    weights, pool = run.load_weights(), run.open_images()
    digests = {WEIGHTS: run.weights_digest(), IMAGES: pool.digest, **inputs_of_score(run)}
    check_same_in_all(digests)
    return weights, pool, digests


def _scorer(run: RunContext, weights: SupernetWeights, pool: ImagePool) -> Agreement:
    run.set_threads()
    report = run.report if distributed.rank() == 0 else silent
    report_processes("search", report)
    return make_scorer(run, weights, pool, report)


@memory_kept()
def _help(run: RunContext) -> SearchResult:
    """Score candidates for the first process, and wait for its result."""
    weights, pool, _ = _scored_with(run)
    if not distributed.of_first(False):
        scorer = _scorer(run, weights, pool)
        distributed.of_all(None)
        with says_where(run.files.search):
            SharedScores(scorer).help()
    return cast(SearchResult, distributed.of_first(None))


def check_searched_for(run: RunContext) -> None:
    """Refuse winners that were searched for another device or with another supernet.

    Raises:
        StageError: Names the difference.
    """
    folder = run.files.search.folder
    record = read_json(folder / RECORD, "search")
    if record["inputs"].get(WEIGHTS) != run.weights_digest():
        raise StageError(
            f"winners found with the weights in {run.files.weights}",
            "winners found with other weights",
            "Run `edgesearch search` with the same configuration first.",
        )
    searched = record["settings"]["device"]
    for field, wanted in run.device.measured_fields.items():
        found = searched.get(field)
        if wanted != found:
            raise StageError(
                f"winners for a device with {field} {in_yaml(wanted)} in {folder}",
                f"winners for {field} {in_yaml(found)}",
                "Run `edgesearch search` with the same configuration first.",
            )
