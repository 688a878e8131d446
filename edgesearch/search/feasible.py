"""Which architectures of a space keep the budgets."""

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
"""Share of feasible architectures from which on drawing uniformly finds them fast enough."""
HOME = 512
"""Feasible architectures that walks start from where few of the drawn ones are feasible."""
STEPS = 32
"""Steps of a walk."""
ROUNDS = 100
"""Rounds of local moves towards the budgets, at most."""
PATIENCE = 8
"""Rounds without any progress after which they end."""


class FeasibleSet(ABC):
    """The architectures that keep the budgets; make one with `find_feasible`.

    Attributes:
        costs: The costs of architectures by name, from digits.
        space: The search space.
        budgets: The bounds.
        parts: A set like this one for each budget of the latency; it is their union.
        rows: Architectures that are known with their costs: all of the space if it is small.
        count: How many there are.
        cannot_run: How many of the space a device cannot run; these keep no budget.
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
        """What an architecture costs; see `Costs` for the names."""
        return float(self.costs[name](self.space.to_digits([architecture]))[0])

    def upper(self, name: str) -> float | None:
        """The upper bound on a cost, by its name; None without one. Of one of the parts."""
        return self.budgets.ranges().get(name, Range()).max

    @abstractmethod
    def keeps(self, digits: np.ndarray) -> np.ndarray:
        """(n,) which of some architectures (n, d) keep the budgets."""

    @abstractmethod
    def are_at_most(self, count: int) -> bool:
        """Whether all are known, and are not more than so many."""

    @abstractmethod
    def __iter__(self) -> Iterator[Architecture]:
        """All of them, in the order of their numbers; only where all are known."""

    @abstractmethod
    def some(self, most: int, rng: np.random.Generator) -> np.ndarray:
        """Digits (n, d) of all of them, or of `most` that are drawn."""

    @abstractmethod
    def in_random_order(self, seed: int) -> Iterator[Architecture]:
        """Each once, until there are none left, or hardly any that can be found."""

    @abstractmethod
    def _unite(self) -> None:
        """Make this the union of its parts."""

    def _part(self, budgets: Budgets) -> FeasibleSet:
        """The same for one budget of the latency.

        Raises:
            InfeasibleError: Nothing keeps it.
        """
        part = copy.copy(self)
        part.budgets, part.parts = budgets, (part,)
        part._narrow(budgets.ranges())
        return part

    @abstractmethod
    def _narrow(self, ranges: Mapping[str, Range]) -> None:
        """Make this the set of what keeps one budget."""


def find_feasible(
    costs: Costs, budgets: Budgets, notes: Mapping[str, str] | None = None
) -> FeasibleSet:
    """The architectures that keep the budgets.

    All of a space up to `space.search_space.LIMIT` are looked at. Of a larger one some are drawn;
    where hardly any of these keep the budgets, such ones are found by local moves.

    Args:
        costs: Has the space and the costs.
        budgets: The bounds.
        notes: What an error says beside a bound, by its name.

    Raises:
        InfeasibleError: No architecture keeps them; says how far off the nearest is.
    """
    kind = EnumeratedSet if is_laid_out(costs.space) else DrawnSet
    return kind(costs, budgets, notes or {})


class EnumeratedSet(FeasibleSet):
    """Of a space that is laid out.

    Attributes:
        mask: (size,) which architectures keep the budgets.
        indices: Their numbers.
    """

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
    """Of a space that is too large to be laid out.

    Where many architectures are feasible, they are drawn uniformly and the others are dropped.
    Where few are, random walks that never leave the feasible set start from those that are known:
    their steps are symmetric, so that in the long run all that they can reach are equally likely.
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
        """See `FeasibleSet`; it is never known."""
        return False

    def __iter__(self) -> Iterator[Architecture]:
        raise NotImplementedError(f"{self.space.name!r} is too large to go through")

    def some(self, most: int, rng: np.random.Generator) -> np.ndarray:
        """See `FeasibleSet`; always draws."""
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
            # Between narrow bounds, only changes that make up for each other are feasible.
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
        """Digits (n, d) of what comes nearest to some ranges, found by local moves."""
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
