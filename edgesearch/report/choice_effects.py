"""What each choice does to agreement and latency, estimated from the trials of a search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgesearch.search.trial_log import Trial

FEWEST_TO_SPARE = 8
"""Trials beyond the number of estimated effects."""
FEWEST_OF_A_VALUE = 2
"""Trials of a value, for an effect of it."""


@dataclass(frozen=True)
class ValueEffect:
    """A value of a choice, compared with the smallest value, all other choices held equal.

    Attributes:
        trials: Trials with the value.
        agreement: Difference of the agreement.
        agreement_error: Half the width of its 95 % interval.
        latency_ms: Difference of the predicted median.
    """

    value: int
    trials: int
    agreement: float
    agreement_error: float
    latency_ms: float


@dataclass(frozen=True)
class ChoiceEffect:
    """The values of a choice, the smallest first."""

    choice: str
    values: tuple[ValueEffect, ...]

    @property
    def span(self) -> float:
        """Difference between the values with the highest and the lowest agreement."""
        found = [each.agreement for each in self.values]
        return max(found) - min(found)


def choice_effects(trials: Sequence[Trial]) -> tuple[ChoiceEffect, ...]:
    """The effects of all choices that vary, the largest first; empty if there are too few trials.

    Agreement and latency are each fitted by least squares to a sum of one effect for each value.
    Values of hardly any trial are left out with their trials.
    """
    kept, levels = _estimable(trials)
    columns = [(choice, value) for choice, values in levels.items() for value in values[1:]]
    if not columns or len(kept) < 1 + len(columns) + FEWEST_TO_SPARE:
        return ()
    design = np.ones((len(kept), 1 + len(columns)))
    for place, (choice, value) in enumerate(columns, 1):
        design[:, place] = [trial.architecture[choice] == value for trial in kept]
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return ()
    targets = np.array([[trial.agreement, trial.latency_ms] for trial in kept])
    found, *_ = np.linalg.lstsq(design, targets, rcond=None)
    errors = _half_widths(design, targets[:, 0] - design @ found[:, 0])
    estimates = dict(zip(columns, zip(found[1:], errors[1:], strict=True), strict=True))
    counts = {choice: Counter(trial.architecture[choice] for trial in kept) for choice in levels}
    effects = []
    for choice, (smallest, *others) in levels.items():
        values = [ValueEffect(smallest, counts[choice][smallest], 0.0, 0.0, 0.0)]
        for value in others:
            (agreement, latency_ms), error = estimates[choice, value]
            count = counts[choice][value]
            values.append(
                ValueEffect(value, count, float(agreement), float(error), float(latency_ms))
            )
        effects.append(ChoiceEffect(choice, tuple(values)))
    return tuple(sorted(effects, key=lambda effect: -effect.span))


def _estimable(trials: Sequence[Trial]) -> tuple[list[Trial], dict[str, list[int]]]:
    """Trials without rare values, and the values of each choice that varies among them."""
    kept = list(trials)
    while kept:
        counts = {
            choice: Counter(trial.architecture[choice] for trial in kept)
            for choice in kept[0].architecture
        }
        rare = {
            (choice, value)
            for choice, found in counts.items()
            for value, count in found.items()
            if count < FEWEST_OF_A_VALUE
        }
        if not rare:
            levels = {choice: sorted(found) for choice, found in counts.items() if len(found) > 1}
            return kept, levels
        kept = [trial for trial in kept if not rare & {*trial.architecture.items()}]
    return [], {}


def _half_widths(design: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Half widths of the 95 % intervals of least-squares coefficients."""
    from scipy.special import stdtrit  # scipy.stats takes seconds to import

    spare = len(design) - design.shape[1]
    variance = float(residuals @ residuals) / spare
    covariance = variance * np.linalg.inv(design.T @ design)
    return np.asarray(stdtrit(spare, 0.975) * np.sqrt(np.diag(covariance)))
