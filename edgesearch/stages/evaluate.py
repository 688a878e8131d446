"""Command evaluate: what the features of subnets are worth, by labels that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from edgesearch.data.image_pool import ImagePool, ImageSource
from edgesearch.errors import Interrupted
from edgesearch.evaluate.comparison import Comparison, Subject, subjects
from edgesearch.evaluate.evaluation_results import EvaluationResults
from edgesearch.evaluate.judge import EvaluationSettings
from edgesearch.events import Event, Report, silent
from edgesearch.run.layout import Layout
from edgesearch.run.output_folder import digest_of, output_folder
from edgesearch.run.stage import prefixed
from edgesearch.search.winners import Winner, Winners
from edgesearch.space import SearchSpace
from edgesearch.stages.search import SearchImages
from edgesearch.supernet.weights import SupernetWeights


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


def evaluate(
    *,
    space: SearchSpace,
    images: ImageSource,
    output_dir: Path,
    looked_at: SearchImages,
    evaluation: EvaluationSettings,
    architectures: Sequence[str] = (),
    seed: int = 0,
    threads: int | None = None,
    report: Report = silent,
) -> EvaluateResult:
    """kNN and linear probe of the winners, of named subnets, and of what to compare them with.

    Features are those of the backbone, before the projector, after recalibration on the same
    images as in search and export. What was evaluated before is not evaluated again.

    Args:
        space: The search space.
        images: Images with labels.
        output_dir: Has the supernet, and the winners if there are any; gets
            `evaluation/results.json`.
        looked_at: Says which images the recalibration uses.
        evaluation: How accuracies are computed.
        architectures: Subnets to evaluate besides, as they print themselves.
        seed: That of the run.
        threads: Of torch; as many as it chooses if None.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        UserError: Something is missing or does not fit.
    """
    named = [space.from_text(text) for text in dict.fromkeys(architectures)]
    with output_folder(output_dir):
        layout = Layout(output_dir)
        pool = ImagePool(images, space.in_channels, seed)
        pool.require_labels()
        calibration = {k: v for k, v in asdict(looked_at).items() if k != "images"}
        identity = {
            "the supernet's weights": digest_of(layout.weights, "pretrain"),
            "the set of images": pool.digest,
            "seed": seed,
            **prefixed("data", images.to_dict()),
            **prefixed("search", calibration),
            **prefixed("evaluation", asdict(evaluation)),
        }
        weights = SupernetWeights.load(layout.weights, space)
        results = EvaluationResults(layout.evaluation, identity)
        compared = subjects(space, _winners(layout, space, report), named)
        torch.set_num_threads(threads or torch.get_num_threads())
        comparison = Comparison(weights, pool, evaluation, **calibration)
        try:
            _fill(results, compared, comparison, report)
        except KeyboardInterrupt:
            raise Interrupted(f"evaluation stopped; its results are in {results.path}") from None
        return _result(results, compared, space, evaluation, report)


def _winners(layout: Layout, space: SearchSpace, report: Report) -> Sequence[Winner]:
    """The winners of the search; none, and a word about it, if there has been no search."""
    if not layout.winners.exists():
        report(Event("evaluate", "no winners among these: `edgesearch search` finds them"))
        return ()
    return Winners.load(layout.winners, space).winners


def _fill(
    results: EvaluationResults,
    compared: Sequence[Subject],
    comparison: Comparison,
    report: Report,
) -> None:
    """Evaluate what the results lack."""
    missing = {subject.key: subject for subject in compared if subject.key not in results}
    if missing and len(missing) < len({subject.key for subject in compared}):
        report(Event("evaluate", "what was evaluated before is not evaluated again"))
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
        report(Event("evaluate", text, number, len(missing)))
    if skipped := comparison.judge.pool.skipped:
        report(Event("evaluate", f"{skipped} images could not be read and are left out"))


def _result(
    results: EvaluationResults,
    compared: Sequence[Subject],
    space: SearchSpace,
    evaluation: EvaluationSettings,
    report: Report,
) -> EvaluateResult:
    rows = tuple(
        EvaluatedRow(
            subject.name,
            results[subject.key]["knn"],
            results[subject.key]["linear"],
            None if subject.architecture is None else space.params(subject.architecture),
            None if subject.architecture is None else space.macs(subject.architecture),
            None if subject.architecture is None else str(subject.architecture),
        )
        for subject in compared
    )
    images = results[compared[0].key]
    voting = min(evaluation.knn_k, images["train_images"])
    if voting < evaluation.knn_k:
        few = (
            f"evaluation.knn_k {evaluation.knn_k} is more than the {voting} training images: "
            "all of them vote"
        )
        report(Event("evaluate", few))
    return EvaluateResult(
        rows,
        voting,
        evaluation.knn_temperature,
        images["train_images"],
        images["test_images"],
        results.path,
    )
