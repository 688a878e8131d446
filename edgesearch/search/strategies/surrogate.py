"""The project's own strategy: a surrogate of the score, asked about the feasible set as a whole.

It uses what a general tuner does not know of this problem. Costs of all architectures are known
beforehand, so only feasible ones are ever considered, and costs are features. Scores are smooth in
widths and depths, so a Gaussian process predicts them from few trials.

Source: Jones et al., "Efficient global optimization of expensive black-box functions" (1998), for
the expected improvement; Ginsbourger et al., "Kriging is well-suited to parallelize optimization"
(2010), for batches.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies.gaussian_process import GaussianProcess, Posterior
from edgesearch.space import Architecture

FIRST_BATCHES = 2
"""Batches that are spread over the feasible set, before there is a surrogate."""
MOST_CANDIDATES = 8192
"""Architectures that are looked at for a batch; of larger sets, so many are drawn for each."""
MOST_TRIALS = 512
"""Trials that the surrogate knows, the best ones and some of the others: bounds memory and time."""
PARENTS = 8
"""Best trials whose neighbours are always looked at."""
REFIT_AFTER = 1.15
"""Hyperparameters are fitted anew when there are so many times as many trials."""
WORST = 3.0
"""Lowest score that counts, in distances of the tenth percentile from the median."""


class SurrogateStrategy:
    """Expected improvement of a Gaussian process, in batches.

    With several budgets of the latency, each proposal is for the next one in turn: the surrogate is
    one, the best score so far is that within the budget.

    Args:
        feasible: What may be proposed.
        seed: Of everything random.
        batch: Architectures in each proposal.
    """

    def __init__(self, feasible: FeasibleSet, seed: int, batch: int) -> None:
        self._feasible, self._seed, self._batch = feasible, seed, batch
        self._encode = Encoding(feasible)
        self._indices: list[int] = []
        self._scores: list[float] = []
        self._turn = 0
        self._theta: np.ndarray | None = None
        self._fitted_on = 0

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        from threadpoolctl import threadpool_limits

        asked = len(self._indices)
        count = min(self._batch, len(self._feasible.indices) - asked)
        if not count:
            return ()
        rng = np.random.default_rng([self._seed, asked])
        with threadpool_limits(1):  # sums in one order, whatever the machine
            if asked < FIRST_BATCHES * self._batch:
                chosen = self._spread(count, rng)
            else:
                chosen = self._improve(count, rng)
        return tuple(self._feasible.space.architecture(int(index)) for index in chosen)

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """See `Strategy`."""
        index = self._feasible.space.index
        told = sorted((index(architecture), score) for architecture, score in scores.items())
        for number, score in told:
            self._indices.append(number)
            self._scores.append(score)

    def close(self) -> None:
        """Nothing to give up."""

    def _spread(self, count: int, rng: np.random.Generator) -> list[int]:
        """Each as far as possible from all before, within the next budget."""
        pool, masks = self._pool(rng)
        points = self._encode(pool)
        taken = self._encode(np.array(self._indices, int))
        distances = np.full(len(pool), np.inf)
        for point in taken:
            distances = np.minimum(distances, ((points - point) ** 2).sum(axis=1))
        chosen: list[int] = []
        for _ in range(count):
            left = _still(distances > 0, masks, self._next_turn())
            if not left.any():
                break
            # The very first is drawn: any is as far away as any other.
            ranks = distances if np.isfinite(distances).all() else rng.random(len(pool))
            best = int(np.where(left, ranks, -np.inf).argmax())
            chosen.append(int(pool[best]))
            distances = np.minimum(distances, ((points - points[best]) ** 2).sum(axis=1))
        return chosen

    def _improve(self, count: int, rng: np.random.Generator) -> list[int]:
        """Each of the highest expected improvement over the best within the next budget."""
        pool, masks = self._pool(rng)
        indices, scores = np.array(self._indices), np.array(self._scores)
        standard = _standardised(scores)
        best = [
            standard[part.mask[indices]].max(initial=standard.min())
            for part in self._feasible.parts
        ]
        posterior = Posterior(self._surrogate(indices, standard, rng), self._encode(pool))
        free = np.ones(len(pool), bool)
        chosen: list[int] = []
        for _ in range(count):
            turn = self._next_turn()
            left = _still(free, masks, turn)
            if not left.any():
                break
            improvement = posterior.expected_improvement(best[turn])
            proposal = int(np.where(left, improvement, -np.inf).argmax())
            chosen.append(int(pool[proposal]))
            free[proposal] = False
            posterior.propose(proposal)
        return chosen

    def _next_turn(self) -> int:
        """Which budget the next proposal is for."""
        self._turn += 1
        return (self._turn - 1) % len(self._feasible.parts)

    def _surrogate(
        self, indices: np.ndarray, standard: np.ndarray, rng: np.random.Generator
    ) -> GaussianProcess:
        fit = self._theta is None or len(indices) >= REFIT_AFTER * self._fitted_on
        if len(indices) > MOST_TRIALS:
            order = np.argsort(-standard, kind="stable")
            others = rng.permutation(order[MOST_TRIALS // 2 :])[: MOST_TRIALS // 2]
            kept = np.sort(np.concatenate([order[: MOST_TRIALS // 2], others]))
            indices, standard = indices[kept], standard[kept]
        process = GaussianProcess(self._encode(indices), standard, self._theta, fit)
        if fit:
            self._theta, self._fitted_on = process.theta, len(self._indices)
        return process

    def _pool(self, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """What is looked at: (n,) untried feasible numbers, and which keep each budget."""
        parts = self._feasible.parts
        share = MOST_CANDIDATES // len(parts)
        drawn = [
            part.indices
            if len(part.indices) <= share
            else part.indices[rng.integers(len(part.indices), size=share)]
            for part in parts
        ]
        tried = np.array(self._indices, int)
        for part in parts:
            inside = tried[part.mask[tried]]
            scores = np.array(self._scores)[part.mask[tried]]
            parents = inside[np.argsort(-scores, kind="stable")[:PARENTS]]
            drawn.append(self._encode.neighbours(parents))
        pool = np.setdiff1d(np.concatenate(drawn), tried)
        pool = pool[self._feasible.mask[pool]]
        if not len(pool):  # nearly all is tried
            pool = np.setdiff1d(self._feasible.indices, tried)
        return pool, [part.mask[pool] for part in parts]


def _still(free: np.ndarray, masks: list[np.ndarray], turn: int) -> np.ndarray:
    """What is left within a budget; within any, if there is nothing."""
    left: np.ndarray = free & masks[turn]
    return left if left.any() else free


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Scores with mean 0 and variance 1; those far below the others are moved closer.

    How bad the worst are says nothing about the best, but would set the scale of all.
    """
    low, middle = np.quantile(scores, [0.1, 0.5])
    clipped = np.maximum(scores, middle - WORST * (middle - low))
    deviation = clipped.std()
    values: np.ndarray = (clipped - clipped.mean()) / (deviation if deviation > 0 else 1.0)
    return values


class Encoding:
    """Architectures as points: the logarithm of each choice and of what they cost.

    Args:
        feasible: Gives the space and its costs.
    """

    def __init__(self, feasible: FeasibleSet) -> None:
        choices = feasible.space.choices
        self._shape = tuple(map(len, choices.values()))
        self._values = [_unit(np.log(values)) for values in choices.values()]
        self._costs = [_unit(np.log(feasible.costs[name])) for name in ("macs", "params")]

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """(n, d) features in 0 … 1 of n architectures by their numbers."""
        digits = np.unravel_index(indices, self._shape)
        columns = [
            values[digit]
            for values, digit in zip(self._values, digits, strict=True)
            if len(values) > 1
        ]
        return np.stack([*columns, *(cost[indices] for cost in self._costs)], axis=-1)

    def neighbours(self, indices: np.ndarray) -> np.ndarray:
        """Those that differ from one of some architectures in one choice."""
        digits = np.array(np.unravel_index(indices, self._shape))
        found = [np.empty(0, int)]
        for axis, count in enumerate(self._shape):
            for choice in range(count):
                changed = digits.copy()
                changed[axis] = choice
                found.append(np.ravel_multi_index(tuple(changed), self._shape))
        return np.unique(np.concatenate(found))


def _unit(values: np.ndarray) -> np.ndarray:
    """Values moved and scaled to 0 … 1."""
    width = np.ptp(values)
    return (values - values.min()) / (width if width > 0 else 1.0)
