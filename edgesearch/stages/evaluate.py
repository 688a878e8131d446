"""Command evaluate: accuracy of subnets' features, on labels not used in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import Interrupted
from edgesearch.evaluate.comparison import Comparison, Subject, subjects
from edgesearch.evaluate.evaluation_results import EvaluationResults
from edgesearch.evaluate.judge import SubnetJudge
from edgesearch.evaluate.linear import require_two_classes
from edgesearch.events import Event
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.run.room import check_memory
from edgesearch.search.winners import Winners
from edgesearch.space import Architecture
from edgesearch.training.allocator import memory_kept


@dataclass(frozen=True)
class EvaluatedRow:
    """Accuracies, in 0 … 1, on held-out images; None where a figure does not apply.

    Attributes:
        name: "winner w0", "named", "largest", "smallest", "largest, random weights" or "raw
            pixels".
    """

    name: str
    knn: float
    linear: float
    params: int | None
    macs: int | None
    architecture: str | None


@dataclass(frozen=True)
class EvaluateResult:
    """Result of `evaluate`."""

    rows: tuple[EvaluatedRow, ...]
    knn_k: int
    knn_temperature: float
    train_images: int
    test_images: int
    results_path: Path


@memory_kept()
def evaluate(run: RunContext, *, architectures: Sequence[str] = ()) -> EvaluateResult:
    """kNN and linear probe of the winners, of subnets given by text, and of baselines.

    Features are those of the backbone, before the projector, after recalibration on the same images
    as in search and export. Known results, in `evaluation/results.json`, are not computed again.
    """
    named = [run.space.from_text(text) for text in dict.fromkeys(architectures)]
    with run.writing():
        pool = run.open_images()
        pool.require_labels()
        check_memory(run, run.config.search.batch_size)
        require_two_classes(pool.readable_labels)
        decisive = run.decisive("calibration", "evaluation")
        identity = {**decisive, WEIGHTS: run.weights_digest(), IMAGES: pool.digest}
        comparison = Comparison(run.load_weights(), make_judge(run, pool))
        results = EvaluationResults(run.files.evaluation, identity)
        compared = subjects(run.space, _winners(run), named)
        run.set_threads()
        try:
            _fill(run, results, compared, comparison)
        except KeyboardInterrupt:
            raise Interrupted(f"evaluation stopped; its results are in {results.path}") from None
        return _result(run, results, compared)


def make_judge(run: RunContext, pool: ImagePool, most: int | None = None) -> SubnetJudge:
    """The configured evaluation of subnets, on `most` images of each split if given."""
    evaluation, search = run.config.evaluation, run.config.search
    if most is not None:
        counts = (evaluation.train_images, evaluation.test_images)
        train_images, test_images = (min(most, count) for count in counts)
        evaluation = evaluation.model_copy(
            update={"train_images": train_images, "test_images": test_images}
        )
    return SubnetJudge(pool, evaluation, search.calibration_images, search.batch_size)


def _winners(run: RunContext) -> Mapping[str, Architecture]:
    """The winners of the search; empty before a search."""
    if not run.files.winners.exists():
        run.teller("evaluate")("no winners to evaluate: run `edgesearch search` to find some")
        return {}
    return Winners.load(run.files.winners, run.space).architectures


def _fill(
    run: RunContext,
    results: EvaluationResults,
    compared: Sequence[Subject],
    comparison: Comparison,
) -> None:
    """Evaluate the subnets that have no result yet."""
    tell = run.teller("evaluate")
    missing = {subject.key: subject for subject in compared if subject.key not in results}
    if missing:
        run.require_lock()
    if missing and len(missing) < len({subject.key for subject in compared}):
        tell("known results are not computed again")
    for number, (key, subject) in enumerate(missing.items(), 1):
        features = comparison.features(subject)
        knn, linear = comparison.judge.knn(features), comparison.judge.linear(features)
        results.add(
            key,
            knn=knn,
            linear=linear,
            train_images=len(features.train_labels),
            test_images=len(features.test_labels),
        )
        text = f"{subject.name}: kNN {knn:.1%}, linear {linear:.1%}"
        run.report(Event("evaluate", text, number, len(missing)))
    for left_out in comparison.judge.pool.unreadable:
        tell(f"images left out: {left_out}")


def _result(
    run: RunContext, results: EvaluationResults, compared: Sequence[Subject]
) -> EvaluateResult:
    settings = run.config.evaluation
    rows = []
    for subject in compared:
        figures, architecture = results[subject.key], subject.architecture
        rows.append(
            EvaluatedRow(
                subject.name,
                figures["knn"],
                figures["linear"],
                *subject.costs(run.space),
                None if architecture is None else str(architecture),
            )
        )
    images = results[compared[0].key]
    voting = min(settings.knn_k, images["train_images"])
    if voting < settings.knn_k:
        run.teller("evaluate")(
            f"evaluation.knn_k {settings.knn_k} exceeds the {voting} training images: all vote"
        )
    return EvaluateResult(
        tuple(rows),
        voting,
        settings.knn_temperature,
        images["train_images"],
        images["test_images"],
        results.path,
    )
