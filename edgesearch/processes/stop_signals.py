"""What SIGINT and SIGTERM do while a process is busy with something."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


class StopSignals:
    """While active, the first SIGINT or SIGTERM only sets `received`; a second one acts as usual.

    A signal that is ignored stays ignored. Outside of the main thread, where Python allows no
    handlers, nothing happens.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._former = _handle(self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        _restore(self._former)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _restore(self._former)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once, where a call never comes back to Python."""
    former = _handle(signal.SIG_DFL)
    try:
        yield
    finally:
        _restore(former)


def _handle(handler: Handler) -> dict[signal.Signals, Any]:
    """Set the handler of both signals; the former handlers by signal."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }


def _restore(former: dict[signal.Signals, Any]) -> None:
    for number, handler in former.items():
        signal.signal(number, handler)
