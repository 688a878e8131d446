"""Which processors this process may use, and how much of them other programs take."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from devices.control_groups import control_groups, text_of

LEAST_SECONDS = 0.25
"""The system counts processor time in hundredths of a second: shorter times tell little."""
_V1_CONTROLLERS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
"""Columns of a processor's line in `/proc/stat`."""


@dataclass(frozen=True)
class Processors:
    """The processors of this machine, and those that this process may use.

    Attributes:
        present: Logical processors of the machine.
        affinity: Numbers of those that this process may run on; empty if the system cannot tell.
        quota: Processors' worth of time that its control group grants; None if not limited.
        cores: Physical cores behind the affinity; its logical processors if that is unknown.
    """

    present: int
    affinity: tuple[int, ...]
    quota: float | None
    cores: int

    @property
    def logical(self) -> int:
        """Logical processors that this process may run on."""
        return len(self.affinity) or self.present

    @property
    def usable(self) -> float:
        """Processors' worth of time that this process can get."""
        return float(self.logical) if self.quota is None else min(self.quota, self.logical)

    def __str__(self) -> str:
        """What limits them, such as "1 of 2 processors (CPU affinity: 0)"."""
        why = []
        if self.logical < self.present:
            why.append(f"CPU affinity: {', '.join(map(str, self.affinity))}")
        if self.quota is not None and self.quota < self.logical:
            why.append(f"CPU quota of its control group: {self.quota:g}")
        text = f"{self.usable:g} of {self.present}" if why else str(self.present)
        noun = "processor" if self.present == 1 else "processors"
        return f"{text} {noun}" + (f" ({'; '.join(why)})" if why else "")


def read_processors(root: Path = Path("/")) -> Processors:
    """Read them; `root` is the folder that holds `proc` and `sys`."""
    present = os.cpu_count() or 1
    has_affinity = hasattr(os, "sched_getaffinity")
    affinity = tuple(sorted(os.sched_getaffinity(0))) if has_affinity else ()
    cores = {_siblings(root, cpu) for cpu in affinity}
    return Processors(present, affinity, _quota(root), len(cores) or present)


def _siblings(root: Path, cpu: int) -> str:
    """The logical processors that share a core with one; only itself if that is unknown."""
    path = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    return text_of(path) or str(cpu)


def _quota(root: Path) -> float | None:
    """The strictest quota of this process's control group and those above it."""
    groups = control_groups(root, "cpu", _V1_CONTROLLERS)
    limits = [limit for folder in groups if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def _limit(folder: Path) -> float | None:
    """The quota of a control group, of version 2 or 1."""
    both = text_of(folder / "cpu.max").split()
    if not both:
        both = [text_of(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        quota, period = map(int, both)
    except ValueError:  # "max", or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


class OtherPrograms:
    """How many processors other programs, or other virtual machines, have used lately.

    Counts the processors of this process's affinity. None everywhere if the system does not tell.

    Args:
        cpus: The affinity.
        stat: The file that counts processor time.
    """

    def __init__(self, cpus: Collection[int], stat: Path = Path("/proc/stat")) -> None:
        self._names = {f"cpu{number}" for number in cpus}
        self._stat = stat
        self._last = self._read()
        self._used: float | None = None

    def used(self) -> float | None:
        """Mean number of processors used by others lately: for at least a quarter of a second."""
        now, before = self._read(), self._last
        if now is None or before is None:
            return None
        passed_s, busy_s, own_s = (a - b for a, b in zip(now, before))
        if passed_s >= LEAST_SECONDS:
            self._used = max(0.0, (busy_s - own_s) / passed_s)
            self._last = now
        return self._used

    def _read(self) -> tuple[float, float, float] | None:
        """A clock, the time that the processors were busy or stolen, and this process's time."""
        lines = text_of(self._stat).splitlines()
        ticks = 0
        for line in lines:
            name, *columns = line.split()
            if name in self._names:
                # Guest time, in the columns after steal, is contained in the first two.
                counts = [int(column) for column in columns[: _STEAL + 1]]
                ticks += sum(counts) - counts[_IDLE] - counts[_IOWAIT]
        if not ticks:
            return None
        return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()
