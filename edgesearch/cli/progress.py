"""Progress display: one live line a stage on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Any

from edgesearch.cli.console import visible
from edgesearch.events import Event

NARROWEST_FOR_BARS = 60
SECONDS_BETWEEN_LINES = 2.0
SECONDS_OF_SILENCE = 60.0
"""After this long without output, a line reports progress within a unit of work."""
SECONDS_OF_SPEED = 600.0
"""The time left is estimated from the progress of this long."""


class Verbosity(IntEnum):
    """How much is shown."""

    QUIET = 0
    """Warnings only."""
    USUAL = 1
    """Progress and what the user should know."""
    VERBOSE = 2
    """Every message, as a line."""


@dataclass
class _Row:
    """The live line of a stage: its task, and the whole units done, once they are known."""

    task: Any
    done: int = 0
    units: int | None = None


class Progress:
    """Shows events on standard error."""

    def __init__(self, verbosity: Verbosity = Verbosity.USUAL) -> None:
        self.verbosity = verbosity
        self._bars: Any = None
        self._rows: dict[str, _Row] = {}
        self._last: Event | None = None
        self._held_back: Event | None = None
        self._warned: set[str] = set()
        self._last_line = 0.0
        self._last_sign = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and self.verbosity == Verbosity.USUAL:
            self._begin_bars()
        return self

    def _begin_bars(self) -> None:
        """Show bars, unless the terminal is too narrow or cannot move its cursor."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        console = Console(stderr=True)
        if console.is_dumb_terminal or console.width < NARROWEST_FOR_BARS:
            return
        self._bars = Bars(
            TextColumn("{task.fields[stage]:>8}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            # It wraps in the rest of the line.
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1)),
            expand=True,
            console=console,
            speed_estimate_period=SECONDS_OF_SPEED,
        )
        self._bars.start()

    def show(self, event: Event) -> None:
        """Show an event."""
        if self.verbosity == Verbosity.QUIET and not _is_warning(event):
            return
        if _is_warning(event):
            if event.message in self._warned:  # several stages read the same table
                return
            self._warned.add(event.message)
        if event.detail and self.verbosity < Verbosity.VERBOSE:
            return
        if self._bars is None:
            self._print(event)
        elif event.done is None:
            # `out` interprets neither markup nor emoji names, and does not cut words.
            self._bars.console.out(visible(f"{event.stage:>8} {event.message}"), highlight=False)
        else:
            self._advance(event)

    def _advance(self, event: Event) -> None:
        """Update the line of a stage; steps within a unit move it by parts of a unit."""
        row = self._rows.get(event.stage)
        if row is None:
            task = self._bars.add_task("", total=event.total, stage=event.stage)
            row = self._rows[event.stage] = _Row(task)
        completed: float = event.done or 0
        total = event.total
        if event.within and row.units is not None:
            completed, total = row.done + completed / (event.total or 1), row.units
        elif event.within:  # of how many units is not known yet
            if event.done == 1:
                self._bars.reset(row.task)
        else:
            if not self._goes_on(event):
                self._bars.reset(row.task)
            row.done, row.units, self._last = int(completed), event.total, event
        message = visible(event.message)
        self._bars.update(row.task, completed=completed, total=total, description=message)

    def _goes_on(self, event: Event) -> bool:
        """Whether an event counts the same work as the last event of whole units.

        While work continues, its total may change (rounds on a busy machine) or its message, but
        not both at once.
        """
        last = self._last
        if last is None or last.stage != event.stage:
            return False
        progress = (event.done or 0) - (last.done or 0)
        if last.message == event.message:
            return progress >= 0
        return last.total == event.total and progress > 0

    def _print(self, event: Event) -> None:
        now = time.monotonic()
        counted = event.done is not None and not event.within
        last = self._last if counted and self._goes_on(event) else None
        if counted and last is None:
            self._print_held_back()
        if event.within and now - self._last_sign < SECONDS_OF_SILENCE:
            return
        if counted:
            is_complete = event.done == event.total
            says_it_again = is_complete and last is not None and last.done == last.total
            self._last = event
            if not is_complete or says_it_again:
                if now - self._last_line < SECONDS_BETWEEN_LINES:
                    self._held_back = event if is_complete else None
                    return
                self._held_back = None
            self._last_line = now
        self._last_sign = now
        _print_line(event)

    def _print_held_back(self) -> None:
        """Print the final count of finished work, even right after another line."""
        if self._held_back is not None:
            _print_line(self._held_back)
        self._held_back = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._print_held_back()
        if self._bars is not None:
            self._bars.stop()


def _is_warning(event: Event) -> bool:
    return event.done is None and event.message.startswith("warning:")


def _print_line(event: Event) -> None:
    count = "" if event.done is None else f" {event.done}/{event.total}"
    print(visible(f"{event.stage}{count}: {event.message}"), file=sys.stderr, flush=True)
