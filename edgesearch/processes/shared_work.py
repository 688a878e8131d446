"""Distribution of work over the processes of a run."""

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
"""Longest wait for the slowest process; a process that has ended is noticed at once."""


class SharedWork(Generic[Item, Result]):
    """Splits work over the processes; each item is computed in one process.

    Results do not depend on the number of processes if all use the same number of threads. The
    first process calls the object; the others call `help` until the first calls `done`.

    Args:
        work: Returns the results of the items in their order.
        cost: Cost of an item, in any unit.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Iterable[Result]], cost: Callable[[Item], float]
    ) -> None:
        self._work = work
        self._cost = cost

    def __call__(self, items: Sequence[Item]) -> Iterator[Result]:
        """Yields the results in the order of the items."""
        if distributed.world_size() == 1:
            yield from self._work(items)
        elif items:
            costs = [self._cost(item) for item in items]
            parts = shares(items, costs, distributed.world_size())
            self._share(parts)
            yield from self._do(parts)

    def help(self) -> None:
        """Compute this process's share of each call until the first process is done."""
        while (parts := self._share()) is not None:
            self._do(parts)

    def done(self) -> None:
        """Release the other processes."""
        self._share()

    def _share(self, parts: list[list[Item]] | None = None) -> list[list[Item]] | None:
        """The first process's parts, one per process; None at the end."""
        return distributed.of_first(parts)

    def _do(self, parts: list[list[Item]]) -> list[Result]:
        own = list(self._work(parts[distributed.rank()]))
        return [result for each in distributed.of_all(own) for result in each]


def shares(items: Sequence[Item], costs: Sequence[float], count: int) -> list[list[Item]]:
    """Cut a sequence into `count` runs of about equal cost (above 0 each); some may be empty."""
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
    """Check that all processes read the same inputs, given their digests by displayed name.

    Raises:
        StageError: An input differs.
    """
    for name, digest in distributed.of_first(dict(inputs)).items():
        if inputs[name] != digest:
            raise StageError(
                f"{name} to be the same for all processes",
                f"another for process {distributed.rank()} than for process 0",
                "Use the same files on all machines.",
            )


def report_processes(stage: str, report: Report) -> None:
    """Report the number of processes and threads if there are several processes."""
    count, threads = distributed.world_size(), torch.get_num_threads()
    if count > 1:
        text = f"work split over {count} processes, {threads} threads each"
        report(Event(stage, text))
