"""Whether a supernet seems to be trained: agreements with an untrained one say nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgesearch.evaluate.comparison import Comparison, Subject
from edgesearch.evaluate.judge import SubnetJudge
from edgesearch.search.agreement import Agreement

LABELLED = 1000
"""Maximum of training images and of held-out images for the comparison with labels."""
UNMOVED = 0.6
"""Agreement of the initial weights with the reference from which a supernet counts as untrained.

Digits: 1.00 untrained, 0.67 after 22 steps, 0.59 after 44, 0.39 after 110, below 0 from 220 on,
where kNN accuracy first exceeds that of the initial weights. CIFAR-10 after 12 epochs: 0.53.
"""


@dataclass(frozen=True)
class TrainingCheck:
    """The largest network compared with its initial weights.

    Attributes:
        initial_agreement: Agreement of the initial weights with the reference of the search.
        knn: kNN accuracy of the trained features, in 0 … 1; None without labels.
        initial_knn: That of the initial weights.
        held_out: Number of images that were classified.
        train_images: Number of images whose labels voted.
        ahead: By how much the agreement of the trained weights is higher, if the reference is none
            of the supernet's own networks; otherwise None.
        ahead_error: Its standard error.
    """

    initial_agreement: float
    knn: float | None = None
    initial_knn: float | None = None
    held_out: int = 0
    train_images: int = 0
    ahead: float | None = None
    ahead_error: float = 0.0

    @property
    def doubt(self) -> str:
        """Why the supernet seems hardly trained; empty if it does not."""
        remedy = "train for longer (pretrain.epochs) before trusting the choice of winners"
        if self.knn is not None and self.initial_knn is not None:
            # One standard error of the difference of two accuracies.
            error = math.sqrt(2 * self.initial_knn * (1 - self.initial_knn) / self.held_out)
            if self.knn > self.initial_knn + error:
                return ""
            return (
                f"the supernet is hardly trained: kNN accuracy of its largest network "
                f"{self.knn:.1%}, with initial random weights {self.initial_knn:.1%} (on "
                f"{self.held_out:,} held-out and {self.train_images:,} training images): {remedy}"
            )
        if self.ahead is not None:
            if self.ahead > self.ahead_error:
                return ""
            return (
                f"the supernet is hardly trained: the agreement of its largest network is "
                f"{self.initial_agreement + self.ahead:.3f}, with initial random weights "
                f"{self.initial_agreement:.3f}: {remedy}"
            )
        if self.initial_agreement < UNMOVED:
            return ""
        return (
            f"the supernet is hardly trained: its largest network with initial random weights has "
            f"an agreement of {self.initial_agreement:.2f} with the trained one: {remedy}"
        )


def check_training(agreement: Agreement, judge: SubnetJudge) -> TrainingCheck:
    """Compare the largest network with its initial weights, by kNN accuracy if there are labels."""
    weights, largest = agreement.weights, agreement.weights.space.largest
    comparison = Comparison(weights, judge)
    network = agreement.calibrated(comparison.random.embedder(largest), largest.resolution)
    initial = agreement.scores_of(network, largest.resolution)
    found = TrainingCheck(float(initial.mean()))
    if agreement.is_foreign:
        ahead = agreement.scores(largest) - initial
        error = float(ahead.std()) / math.sqrt(len(ahead))
        found = replace(found, ahead=float(ahead.mean()), ahead_error=error)
    if not judge.pool.has_labels:
        return found
    features = comparison.features(Subject("largest", largest))
    untrained = comparison.features(Subject("largest", largest, trained=False))
    images = len(features.test_labels), len(features.train_labels)
    return replace(
        found,
        knn=judge.knn(features),
        initial_knn=judge.knn(untrained),
        held_out=images[0],
        train_images=images[1],
    )
