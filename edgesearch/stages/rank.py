"""Command rank: does the score order subnets as their accuracy does?"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from devices import DeviceSpec
from edgesearch.data.image_pool import ImagePool, ImageSource
from edgesearch.errors import Interrupted
from edgesearch.evaluate.judge import EvaluationSettings, SubnetJudge
from edgesearch.evaluate.rank_correlation import RankCorrelation, rank_correlations
from edgesearch.evaluate.rank_files import plot_ranking, write_csv
from edgesearch.evaluate.rank_results import RankedSubnet, RankedSubnets
from edgesearch.events import Event, Report, silent, teller
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.table import current_correction
from edgesearch.processes import distributed
from edgesearch.processes.shared_work import (
    TIMEOUT,
    SharedWork,
    check_same_in_all,
    tell_of_processes,
)
from edgesearch.run.layout import Layout
from edgesearch.run.output_folder import digest_of, output_folder, write_json
from edgesearch.run.stage import Stage, prefixed
from edgesearch.search.agreement import Agreement, ScoreOptions
from edgesearch.search.score_variants import ScoreVariants
from edgesearch.search.scoring import make_agreement
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.profile import load_table
from edgesearch.stages.search import WEIGHTS, SearchImages
from edgesearch.supernet.weights import SupernetWeights

GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


@dataclass(frozen=True)
class RankSettings:
    """How the ranking is made.

    Attributes:
        subnets: How many are scored and evaluated.
        accuracy: "knn" or "linear".
        bins: Parts of equal numbers of subnets.
        draws: Bootstrap draws.
        seed: Which subnets are drawn.
    """

    subnets: int = 120
    accuracy: str = "knn"
    bins: int = 4
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class RankResult:
    """What was found.

    Attributes:
        scores: How well each score orders the subnets, agreement first.
        subnets: How many subnets there are.
        accuracy: By what they were evaluated.
        accuracies: The lowest and the highest.
        images: On how many images they were scored.
        bins_by: "latency_ms" or "macs".
        bin_edges: The lowest and the highest cost of each bin.
        report_path: The same as JSON.
        table_path: Every subnet, as CSV.
        plot_path: A picture.
    """

    scores: tuple[RankCorrelation, ...]
    subnets: int
    accuracy: str
    accuracies: tuple[float, float]
    images: int
    bins_by: str
    bin_edges: tuple[tuple[float, float], ...]
    report_path: Path
    table_path: Path
    plot_path: Path


def rank(
    *,
    space: SearchSpace,
    device: DeviceSpec,
    images: ImageSource,
    output_dir: Path,
    looked_at: SearchImages,
    evaluation: EvaluationSettings,
    settings: RankSettings,
    scored_by: ScoreOptions = ScoreOptions(),  # noqa: B008 (frozen)
    seed: int = 0,
    threads: int | None = None,
    accept: Collection[str] = (),
    report: Report = silent,
) -> RankResult:
    """Score and evaluate subnets from all over the space, and compare the two orders.

    Goes on from where it was stopped, and from fewer subnets. Under `torchrun` the subnets are
    shared out among its processes, of which the first alone writes and reports. Each subnet is
    recalibrated once, on the same images as in search and export, for all its scores and its
    accuracy.

    Args:
        space: The search space.
        device: If its table has been measured, bins are made by predicted latency.
        images: Images with labels.
        output_dir: Has the supernet; gets `rank/`.
        looked_at: Which images are looked at, all of them.
        evaluation: How accuracies are computed.
        settings: How the ranking is made.
        scored_by: What agreement is.
        seed: That of the run.
        threads: Of torch; as many as it chooses if None.
        accept: Fields in which the table may differ from the device; see `load_table`.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        ProcessFailed: Another process of the run has failed.
        UserError: Something is missing or does not fit.
    """
    layout = Layout(output_dir)
    with distributed.processes(TIMEOUT, teller("rank", report)):
        first = distributed.rank() == 0
        report = report if first else silent
        with output_folder(output_dir) if first else nullcontext():
            pool = ImagePool(images, space.in_channels, seed)
            pool.require_labels()
            weights_digest = digest_of(layout.weights, "pretrain")
            inputs = {WEIGHTS: weights_digest, "the set of images": pool.digest}
            check_same_in_all(inputs)
            stage = Stage(
                "rank",
                layout.rank,
                {
                    "space": space.to_dict(),
                    "seed": seed,
                    **prefixed("data", images.to_dict()),
                    **prefixed("search", {**asdict(looked_at), **asdict(scored_by)}),
                    **prefixed("evaluation", asdict(evaluation)),
                    "rank.accuracy": settings.accuracy,
                },
                inputs,
                no_more=("rank.subnets", "rank.seed"),
            )
            weights = SupernetWeights.load(layout.weights, space)
            latency_ms = _latencies(space, device, layout, accept, report) if first else None
            torch.set_num_threads(threads or torch.get_num_threads())
            agreement = make_agreement(weights, pool, looked_at, scored_by, report)
            judge = _judge(pool, evaluation, looked_at)
            ranker = SharedWork(_Ranker(agreement, judge, settings.accuracy), space.macs)
            distributed.of_all(None)  # none refuses: `begin` may set a former ranking aside
            if not first:
                with _says_where(layout.ranked_subnets):
                    ranker.help()
                return cast(RankResult, distributed.of_first(None))
            tell_of_processes("rank", report)
            chosen = spread_subnets(space, settings.subnets, settings.seed)
            found = _begin(stage, layout, chosen, report)
            subnets = _fill(found, chosen, settings, ranker, report)
            result = _analyse(subnets, space, latency_ms, agreement.images, settings, layout)
            stage.finish([layout.ranked_subnets.name, result.report_path.name])
            return distributed.of_first(result)


@contextmanager
def _says_where(path: Path) -> Iterator[None]:
    """Tell the user who stops a ranking where its subnets are."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"ranking stopped; its subnets are in {path}") from None


def _judge(pool: ImagePool, evaluation: EvaluationSettings, looked_at: SearchImages) -> SubnetJudge:
    return SubnetJudge(
        pool,
        evaluation.knn_k,
        looked_at.calibration_images,
        looked_at.batch_size,
        evaluation.knn_temperature,
        evaluation.train_images,
        evaluation.test_images,
    )


def _latencies(
    space: SearchSpace, device: DeviceSpec, layout: Layout, accept: Collection[str], report: Report
) -> np.ndarray | None:
    """Predicted medians of all architectures in ms, (size,); None without a table."""
    path = layout.table(device)
    if not path.exists():
        report(Event("rank", f"no latency table of {device.name}: bins are made by MACs"))
        return None
    table = load_table(path, space, device, accept, "rank", report)
    return LatencyModel.from_table(space, table, current_correction(space, table)).predict_all()


def spread_subnets(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Subnets whose MACs cover the range of the space evenly, smallest first.

    Those of a smaller count are among those of a larger one, so that a ranking can be made longer:
    the multiples of the golden ratio, of which any number from the first on are spread evenly, tell
    where in the range to take the nearest architecture that is left.

    Source: Niederreiter, "Random number generation and quasi-Monte Carlo methods" (1992), chapter
    3; the seed shifts the sequence and decides between architectures of equal MACs.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(space.size)
    macs = space.sum_over_blocks(lambda block: block.macs)
    left = macs[order].astype(float)
    low, width, shift = left.min(), np.ptp(left), rng.random()
    chosen: list[int] = []
    for number in range(min(count, space.size)):
        wanted = low + width * ((shift + number * GOLDEN_RATIO) % 1)
        nearest = int(np.abs(left - wanted).argmin())
        left[nearest] = np.inf
        chosen.append(int(order[nearest]))
    return [space.architecture(index) for index in sorted(chosen, key=lambda i: (macs[i], i))]


class _Ranker:
    """Scores and evaluates subnets.

    Args:
        agreement: The first of the scores; the others are of the same networks and images.
        judge: Evaluates them.
        accuracy: "knn" or "linear".
    """

    def __init__(self, agreement: Agreement, judge: SubnetJudge, accuracy: str) -> None:
        self._agreement = agreement
        self._judge = judge
        self._accuracy = {"knn": judge.knn, "linear": judge.linear}[accuracy]

    @cached_property
    def _variants(self) -> ScoreVariants:
        return ScoreVariants(self._agreement)

    def __call__(self, architectures: Sequence[Architecture]) -> Iterator[RankedSubnet]:
        """One subnet after the other."""
        space = self._agreement.weights.space
        for architecture in architectures:
            network = self._agreement.subnet(architecture)
            own = self._agreement.scores_of(network, architecture.resolution)
            scores = {
                "agreement": float(own.mean()),
                "MACs": float(space.macs(architecture)),
                "parameters": float(space.params(architecture)),
                "depth": float(sum(architecture.stage_depths)),
                **self._variants(architecture, network),
            }
            features = self._judge.features_of_calibrated(network[0], architecture.resolution)
            yield RankedSubnet(architecture, self._accuracy(features), scores)


def _begin(
    stage: Stage, layout: Layout, chosen: Sequence[Architecture], report: Report
) -> RankedSubnets:
    """Find out which subnets are known, of this ranking or of one with others, and tell it."""
    done, message = stage.begin()
    found = RankedSubnets(layout.ranked_subnets)
    known, wanted = sum(each in found.subnets for each in chosen), len(chosen)
    counted = f"{known} of {wanted} subnets are known"
    if done and known == wanted:
        message = f"finished before: all {wanted} subnets are known"
    elif done:
        stage.reopen()
        message = counted
    elif known:
        message = f"{message}; {counted}"
    if message:
        report(Event("rank", message))
    return found


def _fill(
    found: RankedSubnets,
    chosen: Sequence[Architecture],
    settings: RankSettings,
    ranker: SharedWork[Architecture, RankedSubnet],
    report: Report,
) -> list[RankedSubnet]:
    """Score and evaluate what is missing, one subnet for each process at a time."""
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
    space: SearchSpace,
    latency_ms: np.ndarray | None,
    images: int,
    settings: RankSettings,
    layout: Layout,
) -> RankResult:
    accuracies = np.array([subnet.accuracy for subnet in subnets])
    scores = {
        name: np.array([subnet.scores[name] for subnet in subnets]) for name in subnets[0].scores
    }
    costs = scores["MACs"]
    if latency_ms is not None:
        costs = np.array([latency_ms[space.index(subnet.architecture)] for subnet in subnets])
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
        bins_by="macs" if latency_ms is None else "latency_ms",
        bin_edges=tuple(
            (float(costs[bins == b].min()), float(costs[bins == b].max())) for b in np.unique(bins)
        ),
        report_path=layout.rank / "rank.json",
        table_path=layout.rank / "rank.csv",
        plot_path=layout.rank / "rank.png",
    )
    write_json(result.report_path, without_nan(asdict(result)))
    write_csv(result.table_path, subnets, costs.tolist(), bins.tolist())
    plot_ranking(result.plot_path, subnets, bins, correlations, settings.accuracy)
    return result


def without_nan(value: Any) -> Any:
    """Plain JSON types, None where there is no number."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
