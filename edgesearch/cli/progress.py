"""What is shown while a stage works: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from edgesearch.workflow import Event

SECONDS_BETWEEN_LINES = 2.0
SECONDS_OF_SILENCE = 60.0
"""After which a line tells how far a long unit of work has come."""


class Progress:
    """Shows events on standard error."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._last_line = 0.0
        self._last_sign = time.monotonic()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars
            from rich.table import Column

            self._bars = Bars(
                TextColumn("{task.fields[stage]:>8}"),
                BarColumn(24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}", table_column=Column(ratio=1)),  # wraps in the rest
                expand=True,
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def show(self, event: Event) -> None:
        """Show an event."""
        if self._bars is None:
            self._print(event)
        elif event.done is None:
            self._bars.console.print(f"{event.stage:>8} {event.message}", highlight=False)
        else:
            self._advance(event)

    def _advance(self, event: Event) -> None:
        """Move a bar; one for parts goes when the last whole is done."""
        within = f"{event.stage} within"
        bar = within if event.within else f"{event.stage} {event.total}"
        if bar not in self._tasks:
            stage = "" if event.within else event.stage
            self._tasks[bar] = self._bars.add_task("", total=event.total, stage=stage)
        elif event.within and event.done == 1:
            self._bars.reset(self._tasks[bar], total=event.total)
        self._bars.update(self._tasks[bar], completed=event.done, description=event.message)
        if not event.within and event.done == event.total and within in self._tasks:
            self._bars.remove_task(self._tasks.pop(within))

    def _print(self, event: Event) -> None:
        now = time.monotonic()
        counted = event.done is not None
        if event.within and now - self._last_sign < SECONDS_OF_SILENCE:
            return
        if counted and not event.within and event.done != event.total:
            if now - self._last_line < SECONDS_BETWEEN_LINES:
                return
            self._last_line = now
        self._last_sign = now
        count = f" {event.done}/{event.total}" if counted else ""
        print(f"{event.stage}{count}: {event.message}", file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
