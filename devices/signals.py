"""Handling of SIGINT and SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopSignals:
    """Catches SIGINT and SIGTERM; `received` is the last one.

    Ignored signals, such as SIGINT in a script's background command, stay ignored. Outside the
    main thread, where Python allows no handlers, nothing changes.

    Args:
        interrupt: Raise KeyboardInterrupt for each signal. Otherwise the first signal is only
            recorded, and a second one has its usual effect.
    """

    def __init__(self, *, interrupt: bool = False) -> None:
        self.received: signal.Signals | None = None
        self._interrupt = interrupt
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._former = _install(self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self._interrupt:
            raise KeyboardInterrupt
        _restore(self._former)

    def __exit__(self, *_: object) -> None:
        _restore(self._former)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the process at once, for calls that never return to Python."""
    former = _install(signal.SIG_DFL)
    try:
        yield
    finally:
        _restore(former)


def _install(handler: Any) -> dict[signal.Signals, Any]:
    """Set a handler for the signals that are not ignored; return the handlers before."""
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
