"""The architectures of a space that meet the budgets."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np

from edgesearch.search.costs import Costs, Rows
from edgesearch.search.infeasible import infeasible
from edgesearch.search.settings import Budgets, Range
from edgesearch.space import Architecture
from edgesearch.space.count import Count, drawn_digits, is_laid_out
from edgesearch.space.digits import moved, spread_digits, unique_rows

OFTEN = 0.1
"""Minimum share of feasible architectures for rejection sampling."""
HOME = 512
"""Feasible architectures that random walks start from."""
STEPS = 32
"""Steps of a random walk."""
ROUNDS = 100
"""Maximum rounds of local search."""
PATIENCE = 8
"""Rounds without progress after which it ends."""


class FeasibleSet(ABC):
    """The architectures that meet the budgets; created by `find_feasible`.

    Attributes:
        parts: One set for each latency budget; this set is their union.
        rows: Known architectures with their costs: all of a small space, a sample of a large one.
    """

    count: Count
    rows: Rows

    def __init__(self, costs: Costs, budgets: Budgets, notes: Mapping[str, str]) -> None:
        self.costs, self.space, self.budgets = costs, costs.space, budgets
        self._notes = notes
        self.rows = Rows(costs, drawn_digits(self.space))
        self.cannot_run = Count.of(self.space, ~self.rows.runnable)
        self.parts: tuple[FeasibleSet, ...] = tuple(map(self._part, budgets.each()))
        self._unite()

    def __contains__(self, architecture: Architecture) -> bool:
        return bool(self.keeps(self.space.to_digits([architecture]))[0])

    def cost(self, name: str, architecture: Architecture) -> float:
        """A cost of an architecture; see `Costs` for the names."""
        return float(self.costs[name](self.space.to_digits([architecture]))[0])

    def upper(self, name: str) -> float | None:
        """The upper bound on a cost, for one of the parts; None without one."""
        return self.budgets.ranges().get(name, Range()).max

    @abstractmethod
    def keeps(self, digits: np.ndarray) -> np.ndarray:
        """(n,) whether architectures (n, d) meet the budgets."""

    @abstractmethod
    def are_at_most(self, count: int) -> bool:
        """Whether all are known, and at most `count`."""

    @abstractmethod
    def __iter__(self) -> Iterator[Architecture]:
        """All of them, in the order of the space; only if all are known."""

    @abstractmethod
    def some(self, most: int, rng: np.random.Generator) -> np.ndarray:
        """Digits (n, d) of all of them, or of a sample of `most`."""

    @abstractmethod
    def in_random_order(self, seed: int) -> Iterator[Architecture]:
        """Each once, until none or hardly any new ones are found."""

    @abstractmethod
    def _unite(self) -> None:
        """Make this the union of its parts."""

    def _part(self, budgets: Budgets) -> FeasibleSet:
        part = copy.copy(self)
        part.budgets, part.parts = budgets, (part,)
        part._narrow(budgets.ranges())
        return part

    @abstractmethod
    def _narrow(self, ranges: Mapping[str, Range]) -> None:
        """Restrict this to one latency budget; raises InfeasibleError if it is empty."""


def find_feasible(
    costs: Costs, budgets: Budgets, notes: Mapping[str, str] | None = None
) -> FeasibleSet:
    """Find the architectures that meet the budgets.

    Spaces up to `space.search_space.LIMIT` are enumerated. Larger ones are sampled; if hardly any
    sample is feasible, feasible ones are found by local search.

    Raises:
        InfeasibleError: No architecture meets the budgets; describes the nearest one.
    """
    kind = EnumeratedSet if is_laid_out(costs.space) else DrawnSet
    return kind(costs, budgets, notes or {})


class EnumeratedSet(FeasibleSet):
    """Feasible set of an enumerated space."""

    parts: tuple[EnumeratedSet, ...]
    mask: np.ndarray
    indices: np.ndarray

    def keeps(self, digits: np.ndarray) -> np.ndarray:
        """See `FeasibleSet`."""
        kept: np.ndarray = self.mask[np.ravel_multi_index(tuple(digits.T), self._shape)]
        return kept

    def are_at_most(self, count: int) -> bool:
        """See `FeasibleSet`."""
        return len(self.indices) <= count

    def __iter__(self) -> Iterator[Architecture]:
        return (self.space.architecture(int(index)) for index in self.indices)

    def some(self, most: int, rng: np.random.Generator) -> np.ndarray:
        """See `FeasibleSet`."""
        chosen = self.indices
        if len(chosen) > most:
            chosen = chosen[rng.integers(len(chosen), size=most)]
        return np.stack(np.unravel_index(chosen, self._shape), axis=1)

    def in_random_order(self, seed: int) -> Iterator[Architecture]:
        """See `FeasibleSet`."""
        order = np.random.default_rng(seed).permutation(self.indices)
        return (self.space.architecture(int(index)) for index in order)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.space.choices.values()))

    def _unite(self) -> None:
        self._set(np.logical_or.reduce([part.mask for part in self.parts]))

    def _narrow(self, ranges: Mapping[str, Range]) -> None:
        self._set(self.rows.within(ranges))
        if not len(self.indices):
            raise infeasible(self.rows, ranges, self._notes, self.cannot_run)

    def _set(self, mask: np.ndarray) -> None:
        self.mask, self.indices = mask, np.flatnonzero(mask)
        self.count = Count.of(self.space, mask)


class DrawnSet(FeasibleSet):
    """Feasible set of a space too large to enumerate.

    If feasible architectures are frequent, they are drawn uniformly with rejection. If they are
    rare, random walks inside the feasible set start from known ones; the steps are symmetric, so
    the stationary distribution is uniform over all that is reachable.
    """

    parts: tuple[DrawnSet, ...]
    _home: np.ndarray

    def keeps(self, digits: np.ndarray) -> np.ndarray:
        """See `FeasibleSet`."""
        rows = Rows(self.costs, digits)
        kept: np.ndarray = np.logical_or.reduce(
            [rows.within(part.budgets.ranges()) for part in self.parts]
        )
        return kept

    def are_at_most(self, count: int) -> bool:
        """See `FeasibleSet`; never known."""
        return False

    def __iter__(self) -> Iterator[Architecture]:
        raise NotImplementedError(f"{self.space.name!r} is too large to enumerate")

    def some(self, most: int, rng: np.random.Generator) -> np.ndarray:
        """See `FeasibleSet`; always a sample."""
        if self._is_rare:
            return self._walked(self._home[rng.integers(len(self._home), size=most)], rng)
        found = [np.empty((0, len(self.space.choices)), int)]
        while sum(map(len, found)) < most:
            drawn = self.space.draw(2 * most, rng)
            found.append(drawn[self.keeps(drawn)])
        return np.concatenate(found)[:most]

    def in_random_order(self, seed: int) -> Iterator[Architecture]:
        """See `FeasibleSet`."""
        rng = np.random.default_rng(seed)
        seen: set[Architecture] = set()
        barren = 0
        digits = self.some(HOME, rng)
        while barren < PATIENCE:
            found = dict.fromkeys(map(self.space.from_digits, digits))
            digits = self._walked(digits, rng) if self._is_rare else self.some(HOME, rng)
            new = [each for each in found if each not in seen]
            barren = 0 if new else barren + 1
            seen.update(new)
            yield from new

    @property
    def _is_rare(self) -> bool:
        return self.count.number < OFTEN * self.space.size

    def _walked(self, digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for step in range(STEPS):
            # With narrow bounds, only combined changes that compensate each other are feasible.
            steps = moved(self.space, digits, rng, changes=1 + step % 3)
            digits = np.where(self.keeps(steps)[:, None], steps, digits)
        return digits

    @property
    def _drawn(self) -> np.ndarray:
        assert self.rows.digits is not None
        return self.rows.digits

    def _unite(self) -> None:
        self._home = np.concatenate([part._home for part in self.parts])
        self.count = Count.of(self.space, self.keeps(self._drawn))

    def _narrow(self, ranges: Mapping[str, Range]) -> None:
        kept = self.rows.within(ranges)
        self.count = Count.of(self.space, kept)
        self._home = self._drawn[kept]
        if len(self._home) < HOME:
            nearest = self._nearest(ranges)
            kept = Rows(self.costs, nearest).within(ranges)
            self._home = unique_rows(np.concatenate([self._home, nearest[kept]]))
        if not len(self._home):
            each = [self._nearest({name: bound}) for name, bound in ranges.items()]
            known = unique_rows(np.concatenate([self._drawn, nearest, *each]))
            raise infeasible(Rows(self.costs, known), ranges, self._notes, self.cannot_run)

    def _nearest(self, ranges: Mapping[str, Range]) -> np.ndarray:
        """Digits (n, d) of the architectures nearest to the ranges, found by local search."""
        space, rng = self.space, np.random.default_rng(int(self.space.space_hash, 16))
        ends = space.to_digits([space.smallest, space.largest])
        spread = spread_digits(space, len(self._drawn), rng)
        found = np.concatenate([self._drawn, spread, ends])
        best, barren = 0.0, 0
        for _ in range(ROUNDS):
            found = unique_rows(found)
            over = Rows(self.costs, found).worst(ranges)
            order = np.argsort(over, kind="stable")[:HOME]
            found, over = found[order], np.maximum(over[order], 1)
            closeness = float((1 / over).sum())
            best, barren = max(best, closeness), 0 if closeness > best else barren + 1
            if over[-1] <= 1 or barren == PATIENCE:
                break
            found = np.concatenate(
                [found, *(moved(space, found, rng, changes) for changes in (1, 1, 2, 3))]
            )
        return found
