"""Work that the processes of a run share out among themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Generic, TypeVar

import torch

from edgesearch.errors import StageError
from edgesearch.events import Event, Report
from edgesearch.processes import distributed

Item = TypeVar("Item")
Result = TypeVar("Result")
TIMEOUT = timedelta(hours=6)
"""How long the processes wait for the slowest of them; one that has ended is noticed at once."""


class SharedWork(Generic[Item, Result]):
    """Does the same to many things, to each of them in one process alone.

    So no result depends on how many processes there are, if each has as many threads. The first
    process calls it; all others `help`, until the first says that it is `done`.

    Args:
        work: Gives the results of some things, in their order.
        cost: Of one thing, in any unit.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Iterable[Result]], cost: Callable[[Item], float]
    ) -> None:
        self._work = work
        self._cost = cost

    def __call__(self, items: Sequence[Item]) -> Iterator[Result]:
        """The results in the order of the things, as they come."""
        if distributed.world_size() == 1:
            yield from self._work(items)
        elif items:
            costs = [self._cost(item) for item in items]
            parts = shares(items, costs, distributed.world_size())
            self._tell(parts)
            yield from self._do(parts)

    def help(self) -> None:
        """Do this process's share until there is nothing left to do."""
        while (parts := self._tell()) is not None:
            self._do(parts)

    def done(self) -> None:
        """Let the others go."""
        self._tell()

    def _tell(self, parts: list[list[Item]] | None = None) -> list[list[Item]] | None:
        """Each process's share, as the first one has it; None at the end."""
        return distributed.of_first(parts)

    def _do(self, parts: list[list[Item]]) -> list[Result]:
        own = list(self._work(parts[distributed.rank()]))
        return [result for each in distributed.of_all(own) for result in each]


def shares(items: Sequence[Item], costs: Sequence[float], count: int) -> list[list[Item]]:
    """Cut a sequence into runs that cost about the same.

    Args:
        items: What to cut.
        costs: Of each, above 0.
        count: How many runs; some may be empty.
    """
    if len(items) <= count:
        return [[item] for item in items] + [[] for _ in range(count - len(items))]
    runs: list[list[Item]] = [[] for _ in range(count)]
    whole, before = sum(costs), 0.0
    for item, cost in zip(items, costs, strict=True):
        middle = (before + cost / 2) / whole
        runs[min(count - 1, int(count * middle))].append(item)
        before += cost
    return runs


def check_same_in_all(inputs: Mapping[str, str]) -> None:
    """Refuse to work on other files than the first process does.

    Args:
        inputs: Digests by a name to show.

    Raises:
        StageError: Names what differs.
    """
    for name, digest in distributed.of_first(dict(inputs)).items():
        if inputs[name] != digest:
            raise StageError(
                f"{name} to be the same for all processes",
                f"another for process {distributed.rank()} than for the first",
                "Let the configuration name the same files on all machines.",
            )


def tell_of_processes(stage: str, report: Report) -> None:
    """Say how many processes share the work, if there are several."""
    count, threads = distributed.world_size(), torch.get_num_threads()
    if count > 1:
        text = f"shared out among {count} processes, {threads} threads each"
        report(Event(stage, text))
