"""The default strategy: Bayesian optimisation over the feasible set.

Unlike a general tuner it knows the costs of all architectures beforehand: it only considers
feasible ones, and uses costs as features. Scores are smooth in widths and depths, so a Gaussian
process predicts them from few trials.

Source: Jones et al., "Efficient global optimization of expensive black-box functions" (1998), for
the expected improvement; Ginsbourger et al., "Kriging is well-suited to parallelize optimization"
(2010), for batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgesearch.search.feasible import FeasibleSet
from edgesearch.search.strategies.gaussian_process import Posterior, fit_process
from edgesearch.space import Architecture
from edgesearch.space.digits import moved, unique_rows

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

FIRST_BATCHES = 2
"""Initial batches that are spread over the feasible set."""
MOST_CANDIDATES = 8192
"""Maximum candidates per batch; larger sets are sampled."""
MOST_TRIALS = 512
"""Maximum trials in the surrogate: the best ones and a sample of the others."""
PARENTS = 8
"""Best trials whose neighbours are always candidates."""
CLIMBERS = 8
"""Most promising candidates for each budget, from which the next ones are a step away."""
PAIRS = 64
"""Steps that change two choices at once, from each of them; single ones are all tried."""
MOST_STEPS = 12
"""Maximum steps of a climb."""
REFIT_AFTER = 1.15
"""Growth of the number of trials after which hyperparameters are fitted again."""
WORST = 3.0
"""Clipping of low scores, in distances of the 10th percentile from the median."""


class SurrogateStrategy:
    """Expected improvement of a Gaussian process, in batches.

    With several latency budgets, proposals alternate between them: all share one surrogate, and the
    improvement is over the best score within the budget.
    """

    def __init__(self, feasible: FeasibleSet, seed: int, batch: int) -> None:
        self._feasible, self._seed, self._batch = feasible, seed, batch
        self._encode = Encoding(feasible)
        self._tried = np.empty((0, len(feasible.space.choices)), int)
        self._scores = np.empty(0)
        self._turn = 0
        self._theta: np.ndarray | None = None
        self._fitted_on = 0

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        from threadpoolctl import threadpool_limits

        asked = len(self._tried)
        if self._feasible.are_at_most(asked):
            return ()
        rng = np.random.default_rng([self._seed, asked])
        with threadpool_limits(1):  # fixed order of summation on all machines
            if asked < FIRST_BATCHES * self._batch:
                chosen = self._spread(rng)
            else:
                chosen = self._improve(rng)
        return tuple(map(self._feasible.space.from_digits, chosen))

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """See `Strategy`."""
        digits = self._feasible.space.to_digits([*scores])
        order = np.lexsort(digits.T[::-1])  # independent of the order of scoring
        self._tried = np.concatenate([self._tried, digits[order]])
        self._scores = np.concatenate([self._scores, np.array([*scores.values()])[order]])

    def _spread(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Farthest-point sampling within the next budget."""
        pool, masks = self._pool(rng)
        points = self._encode(pool)
        distances = np.full(len(pool), np.inf)
        for point in self._encode(self._tried):
            distances = np.minimum(distances, ((points - point) ** 2).sum(axis=1))
        chosen: list[np.ndarray] = []
        for _ in range(self._batch):
            left = _still(distances > 0, masks, self._next_turn())
            if not left.any():
                break
            # The first point is random.
            ranks = distances if np.isfinite(distances).all() else rng.random(len(pool))
            best = int(np.where(left, ranks, -np.inf).argmax())
            chosen.append(pool[best])
            distances = np.minimum(distances, ((points - points[best]) ** 2).sum(axis=1))
        return chosen

    def _improve(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Highest expected improvement over the best score within the next budget."""
        standard = _standardised(self._scores)
        best = [
            float(standard[part.keeps(self._tried)].max(initial=standard.min()))
            for part in self._feasible.parts
        ]
        process = self._surrogate(standard, rng)
        pool, masks = self._climb(self._pool(rng)[0], process, best, rng)
        posterior = Posterior(process, self._encode(pool))
        free = np.ones(len(pool), bool)
        chosen: list[np.ndarray] = []
        for _ in range(self._batch):
            turn = self._next_turn()
            left = _still(free, masks, turn)
            if not left.any():
                break
            improvement = posterior.expected_improvement(best[turn])
            proposal = int(np.where(left, improvement, -np.inf).argmax())
            chosen.append(pool[proposal])
            free[proposal] = False
            posterior.propose(proposal)
        return chosen

    def _climb(
        self,
        pool: np.ndarray,
        process: GaussianProcessRegressor,
        best: Sequence[float],
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Add what steps from the most promising candidates lead to.

        The best candidates of a large space are hardly among those that were drawn. They are at the
        limit of the budget, where a choice can grow only as another one shrinks.

        Returns:
            The pool (n, d), and a mask (n,) per budget.
        """
        feasible, space = self._feasible, self._feasible.space

        def weigh(digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            posterior = Posterior(process, self._encode(digits))
            masks = np.stack([part.keeps(digits) for part in feasible.parts])
            gains = np.stack([posterior.expected_improvement(each) for each in best])
            return np.where(masks, gains, -1.0), masks

        gains, masks = weigh(pool)
        for _ in range(MOST_STEPS):
            leaders = pool[np.unique(np.argsort(-gains, axis=1, kind="stable")[:, :CLIMBERS])]
            pairs = moved(space, np.repeat(leaders, PAIRS, axis=0), rng, changes=2)
            near = np.concatenate([*map(space.neighbours, leaders), pairs])
            near = unique_rows(near, but=np.concatenate([pool, self._tried]))
            near = near[feasible.keeps(near)]
            if not len(near):
                break
            found, kept = weigh(near)
            is_higher = found.max(axis=1) > gains.max(axis=1)
            pool = np.concatenate([pool, near])
            gains, masks = np.hstack([gains, found]), np.hstack([masks, kept])
            if not is_higher.any():
                break
        return pool, list(masks)

    def _next_turn(self) -> int:
        """Index of the budget for the next proposal."""
        self._turn += 1
        return (self._turn - 1) % len(self._feasible.parts)

    def _surrogate(
        self, standard: np.ndarray, rng: np.random.Generator
    ) -> GaussianProcessRegressor:
        digits = self._tried
        anew = self._theta is None or len(digits) >= REFIT_AFTER * self._fitted_on
        if len(digits) > MOST_TRIALS:
            order = np.argsort(-standard, kind="stable")
            others = rng.permutation(order[MOST_TRIALS // 2 :])[: MOST_TRIALS // 2]
            kept = np.sort(np.concatenate([order[: MOST_TRIALS // 2], others]))
            digits, standard = digits[kept], standard[kept]
        process = fit_process(self._encode(digits), standard, self._theta, anew=anew)
        if anew:
            self._theta, self._fitted_on = process.kernel_.theta, len(self._tried)
        return process

    def _pool(self, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """Candidates: untried feasible digits (n, d), and a mask (n,) per budget."""
        feasible, tried = self._feasible, self._tried
        share = MOST_CANDIDATES // len(feasible.parts)
        found = [part.some(share, rng) for part in feasible.parts]
        for part in feasible.parts:
            inside = part.keeps(tried)
            best = np.argsort(-self._scores[inside], kind="stable")[:PARENTS]
            found += map(feasible.space.neighbours, tried[inside][best])
        pool = unique_rows(np.concatenate(found), but=tried)
        pool = pool[feasible.keeps(pool)]
        if not len(pool):  # nearly everything was tried
            known = {*map(feasible.space.from_digits, tried)}
            left = (each for each in feasible.in_random_order(self._seed) if each not in known)
            pool = feasible.space.to_digits([*itertools.islice(left, MOST_CANDIDATES)])
            pool = unique_rows(pool)
        return pool, [part.keeps(pool) for part in feasible.parts]


def _still(free: np.ndarray, masks: list[np.ndarray], turn: int) -> np.ndarray:
    """The free candidates within a budget; all free ones if there are none."""
    left: np.ndarray = free & masks[turn]
    return left if left.any() else free


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Scores with mean 0 and variance 1, after clipping outliers far below the median."""
    low, middle = np.quantile(scores, [0.1, 0.5])
    clipped = np.maximum(scores, middle - WORST * (middle - low))
    deviation = clipped.std()
    values: np.ndarray = (clipped - clipped.mean()) / (deviation if deviation > 0 else 1.0)
    return values


class Encoding:
    """Architectures as points: logarithms of choices and costs, scaled to 0 … 1."""

    def __init__(self, feasible: FeasibleSet) -> None:
        choices = feasible.space.choices
        # A kernel of size 0, no convolution, counts as one of size 1, which only scales.
        self._values = [_unit(np.log(np.maximum(values, 1))) for values in choices.values()]
        self._costs = [feasible.costs[name] for name in ("macs", "params")]
        logs = [np.log(feasible.rows[name]) for name in ("macs", "params")]
        self._ranges = [(log.min(), np.ptp(log)) for log in logs]

    def __call__(self, digits: np.ndarray) -> np.ndarray:
        """(n, features) of architectures (n, d)."""
        columns = [
            values[digit]
            for values, digit in zip(self._values, digits.T, strict=True)
            if len(values) > 1
        ]
        for cost, (low, width) in zip(self._costs, self._ranges, strict=True):
            columns.append((np.log(cost(digits)) - low) / (width if width > 0 else 1.0))
        return np.stack(columns, axis=-1)


def _unit(values: np.ndarray) -> np.ndarray:
    """Values scaled to 0 … 1."""
    width = np.ptp(values)
    return (values - values.min()) / (width if width > 0 else 1.0)
