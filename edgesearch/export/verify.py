"""Compares outputs of exported networks with those of the trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devices import Runtime, Session
from edgesearch.errors import DifferenceError, ExportError
from edgesearch.evaluate.knn import knn_accuracy
from edgesearch.formats.onnx_export import INPUT_NAME
from edgesearch.formats.precision import Precision, Tolerance
from edgesearch.tasks.task import InGraph

_REPORT = "Please report this with the manifest and versions of torch, onnx and the runtime."
_OTHER_PRECISION = (
    "Choose another precision (device.precision or export.tensorrt.precision), or, for int8, "
    "another export.quantization."
)
Outputs = np.ndarray | Sequence[np.ndarray]
"""One output (N, …), or several."""
LEAST_SAME = 0.98
"""Share of predictions that a file in the network's own precision has to make. Which of two equally
good boxes is kept depends on the last digits of their scores."""
MOST_APART = 0.05
"""Predictions whose values differ by more are not the same in any precision."""
KNN_NEIGHBOURS = 20


@dataclass(frozen=True)
class Parity:
    """Differences between an exported and the trained network.

    Attributes:
        max_difference: Largest difference of an output value, relative to the largest output.
        same_as_pytorch: Share of images with the same top class (logits) or the same nearest other
            image as in PyTorch; None for a single image. This is no accuracy.
        knn_images: Held-out images that were classified.
        knn_train_images: Images whose labels voted.
        metric: Name of the task's figure, on `metric_images` test images, before and after.
    """

    images: int
    max_difference: float
    min_cosine: float
    same_as_pytorch: float | None = None
    knn_before: float | None = None
    knn_after: float | None = None
    knn_images: int | None = None
    knn_train_images: int | None = None
    metric: str | None = None
    metric_before: float | None = None
    metric_after: float | None = None
    metric_images: int | None = None


@dataclass(frozen=True)
class PredictionParity:
    """How what a file with post-processing finds agrees with what the trained network finds.

    Attributes:
        predictions: Those on `images` images, such as boxes; the larger number of both.
        same_predictions: Those that both have.
        max_difference: Largest difference of a value (score, or corner in shares of the input)
            among these.
        tolerance: Predictions that differ by more are not the same.
        metric: Name of the task's figure, on `metric_images` test images, before and after.
    """

    images: int
    predictions: int
    same_predictions: int
    max_difference: float
    tolerance: float
    metric: str | None = None
    metric_before: float | None = None
    metric_after: float | None = None
    metric_images: int | None = None


@dataclass(frozen=True)
class TaskImages:
    """Test images of a task, for its metric.

    Attributes:
        metric: Name of the figure, in 0 … 1.
        images: (N, C, R, R) uint8.
        prepare: Normalises images.
        predictions: What outputs (M, …) say of each of M images.
        figure: The metric of the predictions of the first images.
        max_loss: Allowed loss of the metric by less precise numbers.
        in_graph: The post-processing as part of a graph; None where there is none.
    """

    metric: str
    images: torch.Tensor
    prepare: Callable[[torch.Tensor], torch.Tensor]
    predictions: Callable[[list[np.ndarray]], list[Any]]
    figure: Callable[[list[Any]], float]
    max_loss: float
    in_graph: InGraph | None = None

    def with_post_processing(self) -> TaskImages:
        """For networks that end with the post-processing; `in_graph` is given."""
        assert self.in_graph is not None
        return replace(self, predictions=self.in_graph.predictions)

    def whole_batches(self, batch: int) -> TaskImages:
        """Without the images that do not fill a batch."""
        return replace(self, images=self.images[: len(self.images) // batch * batch])

    def judge(self, run: Callable[[np.ndarray], Outputs], batch: int) -> float:
        """The metric of a network, called with batches (≤ batch, C, R, R)."""
        found: list[Any] = []
        for part in self.images.split(batch):
            found += self.predictions(_listed(run(self.prepare(part).contiguous().numpy())))
        return self.figure(found)


@dataclass(frozen=True)
class KnnImages:
    """Labeled images for kNN accuracies.

    Attributes:
        train: (N, C, R, R) uint8.
        train_labels: (N,) int64.
        test: (M, C, R, R) uint8.
        test_labels: (M,) int64.
        prepare: Normalises images.
    """

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor
    prepare: Callable[[torch.Tensor], torch.Tensor]
    neighbours: int = KNN_NEIGHBOURS

    def whole_batches(self, batch: int) -> KnnImages:
        """Without the images that do not fill a batch, since engines have a fixed batch size."""
        train, test = (len(images) - len(images) % batch for images in (self.train, self.test))
        return self._cut(train, test)

    def first(self, count: int) -> KnnImages:
        """At most `count` training and `count` test images."""
        return self._cut(count, count)

    def _cut(self, train: int, test: int) -> KnnImages:
        return KnnImages(
            self.train[:train],
            self.train_labels[:train],
            self.test[:test],
            self.test_labels[:test],
            self.prepare,
            self.neighbours,
        )

    def accuracy(self, embed: Callable[[np.ndarray], Outputs], batch: int) -> float:
        """kNN accuracy of `embed`, called with batches (≤ batch, C, R, R)."""
        train, test = (self._vectors(images, embed, batch) for images in (self.train, self.test))
        return knn_accuracy(train, self.train_labels, test, self.test_labels, self.neighbours)

    def _vectors(
        self, images: torch.Tensor, embed: Callable[[np.ndarray], Outputs], batch: int
    ) -> torch.Tensor:
        found = []
        for part in images.split(batch):
            pixels = self.prepare(part).contiguous()
            last = torch.from_numpy(np.array(_listed(embed(pixels.numpy()))[-1], np.float32))
            found.append(last.mean(dim=(2, 3)) if last.dim() == 4 else last)
        return torch.cat(found)


def compare(expected: Outputs, found: Outputs, logits: bool = False) -> Parity:
    """Compare expected and found outputs (N, …); of several, the largest differences count."""
    each = [
        _compare(wanted.reshape(len(wanted), -1), given.reshape(len(given), -1), logits)
        for wanted, given in zip(_listed(expected), _listed(found), strict=True)
    ]
    shares = [parity.same_as_pytorch for parity in each if parity.same_as_pytorch is not None]
    return Parity(
        images=each[0].images,
        max_difference=float(np.max([parity.max_difference for parity in each])),
        min_cosine=float(np.min([parity.min_cosine for parity in each])),
        same_as_pytorch=min(shares, default=None),
    )


def _compare(expected: np.ndarray, found: np.ndarray, logits: bool) -> Parity:
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(lengths, 1e-30)
    top1 = None
    if logits or len(expected) > 1:
        same = _best(expected, logits) == _best(found, logits)
        top1 = float(np.mean(same))
    return Parity(
        images=len(expected),
        max_difference=float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-30)),
        min_cosine=float(cosines.min()),
        same_as_pytorch=top1,
    )


def _best(outputs: np.ndarray, logits: bool) -> np.ndarray:
    """The top class of each image, or its nearest other image."""
    if logits:
        return np.asarray(outputs.argmax(axis=1))
    directions = outputs / np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), 1e-30)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.argmax(axis=1))


def _listed(outputs: Outputs) -> list[np.ndarray]:
    return [outputs] if isinstance(outputs, np.ndarray) else list(outputs)


def fits(parity: Parity, allowed: Tolerance) -> bool:
    """Whether outputs are within the tolerance; NaN is not."""
    return (
        parity.max_difference <= allowed.max_difference and parity.min_cosine >= allowed.min_cosine
    )


def verify_engine(
    engine_path: Path,
    runtime: Runtime,
    images: np.ndarray,
    expected: Outputs,
    precision: Precision,
    *,
    logits: bool = False,
    judged_by: tuple[KnnImages | TaskImages, float] | None = None,
    locate: Callable[[], str] | None = None,
) -> Parity:
    """Run an engine on real images and compare it with the trained network.

    `images` are (N, C, H, W) float32, normalised, incomplete batches dropped; `expected` are the
    trained network's outputs (N, …). `judged_by` is whole batches of labeled images with the
    trained network's kNN accuracy, or of test images with the figure of its task. Converted numbers
    (int8) are judged by the figure of a task alone if there is one. `locate` describes where a
    difference begins, if it exceeds the tolerance.

    Raises:
        DifferenceError: The difference exceeds the tolerance.
        ExportError: There are too few images.
        EngineError: The runtime cannot load or run the engine.
    """
    session = runtime.load(engine_path)
    by, before = judged_by or (None, 0.0)
    try:
        batch = session.inputs[INPUT_NAME][0]
        if len(images) < batch:
            raise ExportError(
                f"at least {batch} images (one batch) to verify {engine_path.name} on",
                f"{len(images)} images",
                "Add images, or set a smaller device.batch.",
            )
        parts = [
            _outputs(session, images[start : start + batch])
            for start in range(0, len(images) - batch + 1, batch)
        ]
        found = [np.concatenate(of_one) for of_one in zip(*parts, strict=True)]
        wanted = [output[: len(found[0])] for output in _listed(expected)]
        parity = compare(wanted, found, logits)
        if isinstance(by, KnnImages):
            parity = replace(
                parity,
                knn_before=before,
                knn_after=by.accuracy(lambda pixels: _outputs(session, pixels), batch),
                knn_images=len(by.test),
                knn_train_images=len(by.train),
            )
        if isinstance(by, TaskImages):
            parity = replace(
                parity,
                metric=by.metric,
                metric_before=before,
                metric_after=by.judge(lambda pixels: _outputs(session, pixels), batch),
                metric_images=len(by.images),
            )
    finally:
        session.close()
    by_task = isinstance(by, TaskImages) and precision.judged_by_labels
    if not by_task and not fits(parity, precision.tolerance):
        _refuse_difference(engine_path, parity, precision, locate)
    if isinstance(by, TaskImages):
        _check_task(engine_path, parity, precision, by.max_loss)
    _check_knn(engine_path, parity, precision)
    return parity


def verify_post_processing(
    path: Path,
    runtime: Runtime,
    images: np.ndarray,
    expected: Sequence[np.ndarray],
    precision: Precision,
    task: TaskImages,
    before: float | None,
) -> PredictionParity:
    """Run a file that ends with the post-processing, and compare what it finds.

    Args as in `verify_engine`: `expected` are outputs of the trained network, without the
    post-processing; `before` is its figure on the images of `task`, None if there are too few.

    Raises:
        DifferenceError: In the network's own precision, it finds something else.
        ExportError: The figure falls by more than the task allows.
        EngineError: The runtime cannot load or run the file.
    """
    by = task.with_post_processing()
    session = runtime.load(path)
    try:
        batch = session.inputs[INPUT_NAME][0]
        found: list[Any] = []
        for start in range(0, len(images) - batch + 1, batch):
            found += by.predictions(_outputs(session, images[start : start + batch]))
        wanted = task.predictions([output[: len(found)] for output in expected])
        after = None
        if before is not None:
            after = by.judge(lambda pixels: _outputs(session, pixels), batch)
    finally:
        session.close()
    assert task.in_graph is not None
    tolerance = min(precision.tolerance.max_difference, MOST_APART)
    match = task.in_graph.match(wanted, found, tolerance)
    parity = PredictionParity(len(found), match.count, match.same, match.max_difference, tolerance)
    if before is not None:
        parity = replace(
            parity,
            metric=by.metric,
            metric_before=before,
            metric_after=after,
            metric_images=len(by.images),
        )
    if precision.convert is None and match.same < LEAST_SAME * match.count:
        raise DifferenceError(
            f"at least {LEAST_SAME:.0%} of the trained network's predictions from {path.name}, up "
            f"to {tolerance:g} of scores and sides ({precision.name})",
            f"{match.same} of {match.count} on {parity.images} images",
            _REPORT,
        )
    _check_task(path, parity, precision, by.max_loss)
    return parity


def _outputs(session: Session, pixels: np.ndarray) -> list[np.ndarray]:
    return list(session.run({INPUT_NAME: pixels}).values())


def _refuse_difference(
    path: Path, parity: Parity, precision: Precision, locate: Callable[[], str] | None
) -> None:
    allowed = precision.tolerance
    where = f"; {locate()}" if locate is not None else ""
    raise DifferenceError(
        f"{path.name} equal to the trained network up to {allowed.max_difference:g} of "
        f"its largest output, with cosine ≥ {allowed.min_cosine} ({precision.name})",
        f"a difference of {parity.max_difference:.3g} and cosine {parity.min_cosine:.6f} "
        f"on {parity.images} images{where}",
        _REPORT if precision.convert is None else _OTHER_PRECISION,
    )


def _check_task(
    path: Path, parity: Parity | PredictionParity, precision: Precision, allowed: float
) -> None:
    before, after = parity.metric_before, parity.metric_after
    if before is None or after is None or before - after <= allowed + 1e-9:
        return
    raise ExportError(
        f"a loss of {parity.metric} of at most {allowed:.1%} for {path.name} ({precision.name})",
        f"{before:.1%} before and {after:.1%} after, on {parity.metric_images} images",
        "Choose another export.quantization, more search.calibration_images, another precision, or "
        "a larger export.max_task_loss.",
    )


def _check_knn(path: Path, parity: Parity, precision: Precision) -> None:
    allowed, images = precision.tolerance.max_knn_loss, parity.knn_images
    if allowed is None or not images or parity.knn_before is None or parity.knn_after is None:
        return
    # The loss of a single image is not significant.
    allowed = max(allowed, 1 / images)
    if parity.knn_before - parity.knn_after > allowed + 1e-9:
        raise DifferenceError(
            f"a loss of kNN accuracy of at most {allowed:.1%} for {path.name} ({precision.name})",
            f"{parity.knn_before:.1%} before and {parity.knn_after:.1%} after, on {images} images",
            "Choose another export.quantization, more search.calibration_images, or another "
            "precision.",
        )
