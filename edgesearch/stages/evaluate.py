"""Command evaluate: what the features of subnets are worth, by labels that training never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesearch.errors import Interrupted
from edgesearch.evaluate.comparison import Comparison, Subject, subjects
from edgesearch.evaluate.evaluation_results import EvaluationResults
from edgesearch.events import Event
from edgesearch.run.context import IMAGES, WEIGHTS, RunContext
from edgesearch.search.winners import Winners
from edgesearch.space import Architecture


@dataclass(frozen=True)
class EvaluatedRow:
    """Accuracies, in 0 … 1, on images held out; None where a figure does not apply.

    Attributes:
        name: What the line is about: "winner w0", "named", "largest", "smallest", "largest, random
            weights" or "raw pixels".
        knn: Of the vote of the nearest neighbours.
        linear: Of the linear probe.
        params: Learnable parameters.
        macs: Multiply-accumulates for one image.
        architecture: The subnet, as it prints itself.
    """

    name: str
    knn: float
    linear: float
    params: int | None
    macs: int | None
    architecture: str | None


@dataclass(frozen=True)
class EvaluateResult:
    """What was evaluated.

    Attributes:
        rows: The lines of the comparison.
        knn_k: Neighbours that voted.
        knn_temperature: T of their weights.
        train_images: Training images with labels that were used.
        test_images: Images held out that were classified.
        results_path: Keeps the accuracies, so that none is computed twice.
    """

    rows: tuple[EvaluatedRow, ...]
    knn_k: int
    knn_temperature: float
    train_images: int
    test_images: int
    results_path: Path


def evaluate(run: RunContext, *, architectures: Sequence[str] = ()) -> EvaluateResult:
    """kNN and linear probe of the winners, of named subnets, and of what to compare them with.

    Features are those of the backbone, before the projector, after recalibration on the same
    images as in search and export. What was evaluated before is not evaluated again.

    Args:
        run: Has the supernet, and the winners if there are any; gets `evaluation/results.json`.
        architectures: Subnets to evaluate besides, as they print themselves.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        UserError: Something is missing or does not fit.
    """
    named = [run.space.from_text(text) for text in dict.fromkeys(architectures)]
    with run.writing():
        pool = run.open_images()
        pool.require_labels()
        settings = run.config.search
        decisive = run.decisive("score", "evaluation")
        for apart in ("task", "score", "reference", "stages", "images"):  # calibration counts
            del decisive[f"search.{apart}"]
        identity = {**decisive, WEIGHTS: run.weights_digest(), IMAGES: pool.digest}
        weights = run.load_weights()
        results = EvaluationResults(run.files.evaluation, identity)
        compared = subjects(run.space, _winners(run), named)
        run.set_threads()
        comparison = Comparison(
            weights,
            pool,
            run.config.evaluation,
            settings.calibration_images,
            settings.batch_size,
        )
        try:
            _fill(run, results, compared, comparison)
        except KeyboardInterrupt:
            raise Interrupted(f"evaluation stopped; its results are in {results.path}") from None
        return _result(run, results, compared)


def _winners(run: RunContext) -> Mapping[str, Architecture]:
    """The winners of the search; none, and a word about it, if there has been no search."""
    if not run.files.winners.exists():
        run.teller("evaluate")("no winners among these: `edgesearch search` finds them")
        return {}
    return Winners.load(run.files.winners, run.space).architectures


def _fill(
    run: RunContext,
    results: EvaluationResults,
    compared: Sequence[Subject],
    comparison: Comparison,
) -> None:
    """Evaluate what the results lack."""
    tell = run.teller("evaluate")
    missing = {subject.key: subject for subject in compared if subject.key not in results}
    if missing and len(missing) < len({subject.key for subject in compared}):
        tell("what was evaluated before is not evaluated again")
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
    if skipped := comparison.judge.pool.skipped:
        tell(f"{skipped} images could not be read and are left out")


def _result(
    run: RunContext, results: EvaluationResults, compared: Sequence[Subject]
) -> EvaluateResult:
    space, settings = run.space, run.config.evaluation
    rows = []
    for subject in compared:
        figures, architecture = results[subject.key], subject.architecture
        costs = (
            (None, None, None)
            if architecture is None
            else (space.params(architecture), space.macs(architecture), str(architecture))
        )
        rows.append(EvaluatedRow(subject.name, figures["knn"], figures["linear"], *costs))
    images = results[compared[0].key]
    voting = min(settings.knn_k, images["train_images"])
    if voting < settings.knn_k:
        run.teller("evaluate")(
            f"evaluation.knn_k {settings.knn_k} is more than the {voting} training images: "
            "all of them vote"
        )
    return EvaluateResult(
        tuple(rows),
        voting,
        settings.knn_temperature,
        images["train_images"],
        images["test_images"],
        results.path,
    )
