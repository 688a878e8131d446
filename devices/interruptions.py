"""Whether other programs interrupted a run while it was timed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path

_LEAST_MS = 0.01
"""Waiting that is not told from the clocks' own cost."""
_SWITCH_MS = 1.0
"""What an involuntary switch costs at least, where the system counts nothing better."""


class RunWatch:
    """Measures how long runs of the calling thread wait for a processor; a context manager.

    A single thread that computes waits whenever the clock advances without its processor time: for
    other programs, for the hypervisor, or for the quota of its control group. Several threads wait
    for each other as well; there the scheduler's own count of the time in run queues is read, or,
    without it, involuntary switches are counted.

    Args:
        workers: System's ids of the threads that compute beside the calling one; nothing is
            watched if None.
        share: Share of a run that it may wait without being interrupted.
        tasks: Folder in which the system describes the threads of this process.
    """

    def __init__(
        self,
        workers: Collection[int] | None,
        share: float = 0.02,
        tasks: Path = Path("/proc/self/task"),
    ) -> None:
        self._share = share
        self._watched = workers is not None
        self._single = workers is not None and not workers
        self._files: list[int] = []
        if workers:
            self._open([threading.get_native_id(), *workers], tasks)
        self._before = (0.0, 0.0)

    def _open(self, threads: Collection[int], tasks: Path) -> None:
        try:
            for thread in threads:
                path = tasks / str(thread) / "schedstat"
                self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            self._queued_ms()
        except (OSError, ValueError, IndexError):  # not Linux, hidden, or too many open files
            self.close()

    def __enter__(self) -> RunWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the system's files."""
        while self._files:
            os.close(self._files.pop())

    def start(self) -> None:
        """A run begins."""
        self._before = self._counts()

    def waited_ms(self, run_ms: float) -> float:
        """How long the run that ends now waited; 0 if that is too little to matter.

        Args:
            run_ms: What the run took.
        """
        (clock_ms, lost_ms), (clock_before_ms, lost_before_ms) = self._counts(), self._before
        if self._single:  # the counts are the clock and the processor time
            waited_ms = (clock_ms - clock_before_ms) - (lost_ms - lost_before_ms)
        else:
            waited_ms = lost_ms - lost_before_ms
        return waited_ms if waited_ms > self._share * run_ms + _LEAST_MS else 0.0

    def _counts(self) -> tuple[float, float]:
        if not self._watched:
            return 0.0, 0.0
        if self._single:
            return time.perf_counter_ns() / 1e6, time.thread_time_ns() / 1e6
        return 0.0, self._queued_ms() if self._files else _SWITCH_MS * _switches()

    def _queued_ms(self) -> float:
        """Time that the threads spent in run queues, in all."""
        waited_ns = 0
        for file in self._files:
            with contextlib.suppress(ProcessLookupError):  # the thread has ended
                waited_ns += int(os.pread(file, 128, 0).split()[1])
        return waited_ns / 1e6


def _switches() -> int:
    """Involuntary switches of all threads; 0 where the system does not count them."""
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    return 0


def thread_ids() -> frozenset[int]:
    """System's ids of this process's threads; empty if the system hides them."""
    with contextlib.suppress(OSError):
        return frozenset(map(int, os.listdir("/proc/self/task")))
    return frozenset()


def yield_processor() -> None:
    """Let waiting programs run first, so that this thread begins with a whole time slice."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()
