"""Command rank: rank correlation between score and accuracy of subnets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from devices.files import write_json
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import Interrupted
from edgesearch.evaluate.judge import SubnetJudge
from edgesearch.evaluate.rank_correlation import RankCorrelation, rank_correlations
from edgesearch.evaluate.rank_results import (
    RankedSubnet,
    RankedSubnets,
    plot_ranking,
    write_csv,
)
from edgesearch.evaluate.settings import RankSettings
from edgesearch.events import Event, Report, silent
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.load_table import corrected_model, load_table
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import (
    TIMEOUT,
    SharedWork,
    check_same_in_all,
    report_processes,
)
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.room import check_memory
from edgesearch.run.stage import Stage
from edgesearch.search.agreement import Agreement
from edgesearch.search.label_votes import label_score
from edgesearch.search.score_variants import ScoreVariants
from edgesearch.space import Architecture, SearchSpace
from edgesearch.space.count import is_laid_out
from edgesearch.space.digits import spread_digits, unique_rows
from edgesearch.stages.scorer import (
    foreign_reference,
    inputs_of_score,
    known_references,
    make_scorer,
)
from edgesearch.supernet.weights import SupernetWeights
from edgesearch.training.allocator import memory_kept

CANDIDATES = 100_000
"""Sample size in spaces too large to enumerate."""
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


@dataclass(frozen=True)
class RankResult:
    """Result of `rank`.

    Attributes:
        accuracies: Lowest and highest accuracy.
        latency_of: What latencies are of: "backbone", or "whole model" with its head; None without
            a table.
        bin_edges: Lowest and highest cost of each bin.
    """

    scores: tuple[RankCorrelation, ...]
    subnets: int
    accuracy: str
    accuracies: tuple[float, float]
    images: int
    bins_by: str
    latency_of: str | None
    bin_edges: tuple[tuple[float, float], ...]
    report_path: Path
    table_path: Path
    plot_path: Path


@memory_kept()
def rank(run: RunContext, *, anew: bool = False) -> RankResult:
    """Score and evaluate subnets across the space, and correlate the two rankings; writes `rank/`.

    Resumes where it was stopped, also after `rank.subnets` was raised. Under `torchrun` the
    processes share the subnets; only the first writes and reports. Each subnet is recalibrated
    once, on the same images as in search and export. Bins are made by predicted latency if there is
    a table of the device, with `finetune.task` that of whole models, otherwise by MACs.

    Args:
        run: The run.
        anew: Set aside a ranking of other settings or inputs even if it took long.

    Raises:
        StageError: Without `anew`, there is such a ranking.
    """
    with distributed.processes(TIMEOUT, run.teller("rank")):
        first = distributed.rank() == 0
        report = run.report if first else silent
        with run.writing() if first else nullcontext():
            pool = run.open_images()
            pool.require_labels()
            check_memory(run, run.config.search.batch_size)
            inputs = {WEIGHTS: run.weights_digest(), IMAGES: pool.digest, **inputs_of_score(run)}
            check_same_in_all(inputs)
            others = known_references(run)
            decisive = run.decisive("score", "evaluation", "rank") | {"references": others}
            stage = Stage("rank", run.files.rank, decisive, inputs)
            if first and not stage.is_finished():
                run.require_lock()
                stage.take_back(run.teller("rank"))
                stage.check_loss(anew)
            weights = run.load_weights()
            model = _latency_model(run) if first else None
            run.set_threads()
            settings = run.config.rank
            work = _make_ranker(run, weights, pool, others, report)
            ranker = SharedWork(work, run.space.macs)
            distributed.of_all(None)  # barrier before `begin` may set a former ranking aside
            path = run.files.rank / "subnets.jsonl"
            if not first:
                with _says_where(path):
                    ranker.help()
                return cast(RankResult, distributed.of_first(None))
            report_processes("rank", report)
            chosen = spread_subnets(run.space, settings.subnets, settings.seed)
            found = _known(stage, path, chosen, run)
            subnets = _fill(found, chosen, settings, ranker, report)
            result, costs, bins = _analyse(subnets, run, model, work.agreement.images)
            if run.may_write:
                _write(result, subnets, costs, bins)
                stage.finish([path.name, result.report_path.name])
            return distributed.of_first(result)


@contextmanager
def _says_where(path: Path) -> Iterator[None]:
    """Turn Ctrl-C into a message that says where the results are."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"ranking stopped; its subnets are in {path}") from None


def _latency_model(run: RunContext) -> LatencyModel | None:
    """The latency model of the device; None without a table."""
    path = run.files.table(run.device)
    if not path.exists():
        run.teller("rank")(f"no latency table of {run.device.name}: binning by MACs")
        return None
    accept = run.config.profile.accept
    table = load_table(path, run.space, run.device, accept, "rank", run.report, head=run.head)
    return corrected_model(run.space, table, run.head)


def spread_subnets(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Subnets whose MACs are spread evenly over the range of the space, smallest first.

    A smaller count gives a subset of a larger one, so that a ranking can be extended: multiples of
    the golden ratio, modulo 1, give positions in the range, and the nearest remaining architecture
    is taken. Spaces too large to enumerate are sampled first.

    Source: Niederreiter, "Random number generation and quasi-Monte Carlo methods" (1992), chapter
    3; the seed shifts the sequence and breaks ties between equal MACs.
    """
    rng = np.random.default_rng(seed)
    macs_of = space.sums(lambda block: block.macs)
    make: Callable[[int], Architecture]
    if is_laid_out(space):
        order = rng.permutation(space.size)
        left, make = macs_of(None)[order], lambda row: space.architecture(int(order[row]))
    else:
        ends = space.to_digits([space.smallest, space.largest])
        digits = np.concatenate([ends, spread_digits(space, CANDIDATES, rng)])
        digits = rng.permutation(unique_rows(digits))
        left, make = macs_of(digits), lambda row: space.from_digits(digits[row])
    low, width, shift = left.min(), np.ptp(left), rng.random()
    chosen: list[int] = []
    for number in range(min(count, len(left))):
        wanted = low + width * ((shift + number * GOLDEN_RATIO) % 1)
        nearest = int(np.abs(left - wanted).argmin())
        left[nearest] = np.inf
        chosen.append(nearest)
    return sorted(map(make, chosen), key=lambda each: (space.macs(each), space.index(each)))


class _Ranker:
    """Computes all scores and the accuracy of subnets.

    Args:
        agreement: The score of the search.
        variants: Makes the others, on first use.
        label_images: Number of labelled training images for the score of labels.
        judge: Measures the accuracy.
        accuracy: Its kind.
    """

    def __init__(
        self,
        agreement: Agreement,
        variants: Callable[[], ScoreVariants],
        label_images: int,
        judge: SubnetJudge,
        accuracy: str,
    ) -> None:
        self.agreement = agreement
        self._make_variants = variants
        self._label_images = label_images
        self._judge = judge
        self._accuracy = {"knn": judge.knn, "linear": judge.linear}[accuracy]

    @cached_property
    def _variants(self) -> ScoreVariants:
        return self._make_variants()

    def __call__(self, architectures: Sequence[Architecture]) -> Iterator[RankedSubnet]:
        space = self.agreement.weights.space
        for architecture in architectures:
            network = self.agreement.subnet(architecture)
            own = self.agreement.scores_of(network, architecture.resolution)
            features = self._judge.features_of_calibrated(network[0], architecture.resolution)
            labelled = slice(self._label_images)
            votes = label_score(features.train[labelled], features.train_labels[labelled])
            scores = {
                "agreement": float(own.mean()),
                "MACs": float(space.macs(architecture)),
                "parameters": float(space.params(architecture)),
                "depth": float(len(space.blocks(architecture))),
                **self._variants(architecture, network),
                "labels": float(votes.double().mean()),
            }
            yield RankedSubnet(architecture, self._accuracy(features), scores)


def _make_ranker(
    run: RunContext,
    weights: SupernetWeights,
    pool: ImagePool,
    references: Sequence[str],
    report: Report,
) -> _Ranker:
    search, evaluation = run.config.search, run.config.evaluation
    agreement = make_scorer(run, weights, pool, report)
    on_all = agreement
    if search.score == "labels":  # the others are compared on images without labels, too
        plain = search.model_copy(update={"score": "cosine", "reference": "key"})
        on_all = make_scorer(run, weights, pool, report, plain)
    others = {name: foreign_reference(run, name, pool, report) for name in references}
    judge = SubnetJudge(pool, evaluation, search.calibration_images, search.batch_size)
    return _Ranker(
        agreement,
        lambda: ScoreVariants(on_all, others),
        search.label_images or search.images,
        judge,
        run.config.rank.accuracy,
    )


def _known(
    stage: Stage, path: Path, chosen: Sequence[Architecture], run: RunContext
) -> RankedSubnets:
    """Load known subnets of this ranking, and report how many there are."""
    found = RankedSubnets(path, run.space, cut=run.may_write)
    missing = [each for each in chosen if each not in found.subnets]
    if stage.is_finished() and not missing:
        message = f"already finished: all {len(chosen)} subnets are known"
    else:
        run.require_lock()
        message = stage.begin()  # sets aside results of other settings
        found = RankedSubnets(path, run.space)
        known = sum(each in found.subnets for each in chosen)
        if known:
            counted = f"{known} of {len(chosen)} subnets are known"
            message = f"{message}; {counted}" if message else counted
    if message:
        run.report(Event("rank", message))
    return found


def _fill(
    found: RankedSubnets,
    chosen: Sequence[Architecture],
    settings: RankSettings,
    ranker: SharedWork[Architecture, RankedSubnet],
    report: Report,
) -> list[RankedSubnet]:
    """Score and evaluate the missing subnets, one per process at a time."""
    missing = [architecture for architecture in chosen if architecture not in found.subnets]
    number = len(chosen) - len(missing)
    count = distributed.world_size()
    with _says_where(found.path):
        for start in range(0, len(missing), count):
            for subnet in ranker(missing[start : start + count]):
                found.add(subnet)
                number += 1
                text = f"agreement {subnet.scores['agreement']:.4f}, {settings.accuracy} "
                report(Event("rank", f"{text}{subnet.accuracy:.1%}", number, len(chosen)))
        ranker.done()
    return [found.subnets[architecture] for architecture in chosen]


def _analyse(
    subnets: Sequence[RankedSubnet],
    run: RunContext,
    model: LatencyModel | None,
    images: int,
) -> tuple[RankResult, np.ndarray, np.ndarray]:
    """The result, and costs and bins of the subnets."""
    settings = run.config.rank
    accuracies = np.array([subnet.accuracy for subnet in subnets])
    scores = {
        name: np.array([subnet.scores[name] for subnet in subnets]) for name in subnets[0].scores
    }
    costs = scores["MACs"]
    if model is not None:
        costs = model.predict_all(run.space.to_digits([each.architecture for each in subnets]))
        scores["latency"] = costs
    ranks = np.argsort(np.argsort(costs, kind="stable"), kind="stable")
    bins = ranks * settings.bins // len(subnets)
    correlations = rank_correlations(
        scores, accuracies, bins, draws=settings.draws, seed=settings.seed
    )
    result = RankResult(
        scores=tuple(correlations),
        subnets=len(subnets),
        accuracy=settings.accuracy,
        accuracies=(float(accuracies.min()), float(accuracies.max())),
        images=images,
        bins_by="macs" if model is None else "latency_ms",
        latency_of=None if model is None else model.about,
        bin_edges=tuple(
            (float(costs[bins == b].min()), float(costs[bins == b].max())) for b in np.unique(bins)
        ),
        report_path=run.files.rank / "rank.json",
        table_path=run.files.rank / "rank.csv",
        plot_path=run.files.rank / "rank.png",
    )
    return result, costs, bins


def _write(
    result: RankResult, subnets: Sequence[RankedSubnet], costs: np.ndarray, bins: np.ndarray
) -> None:
    write_json(result.report_path, without_nan(asdict(result)))
    write_csv(result.table_path, subnets, costs.tolist(), bins.tolist())
    plot_ranking(result.plot_path, subnets, bins, result.scores, result.accuracy)


def without_nan(value: Any) -> Any:
    """Convert to plain JSON types, with None for NaN and infinity."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
