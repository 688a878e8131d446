"""Wall time and peak memory of whole commands, beside their targets.

Usage: python benchmarks/wall_times.py [help] [profile] [quickstart] [tests]
(all of them by default). Run nothing else on the machine meanwhile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from machine import print_machine

ROOT = Path(__file__).resolve().parents[1]
EDGESEARCH = (sys.executable, "-m", "edgesearch")


@dataclass(frozen=True)
class Command:
    """A command with what is required of it.

    Attributes:
        arguments: The command; "{folder}" stands for an empty folder.
        target_s: Longest wall time.
        target_bytes: Largest resident memory of its largest process, None without a bound.
        repeats: Runs; the median counts.
    """

    arguments: tuple[str, ...]
    target_s: float
    target_bytes: float | None = None
    repeats: int = 1


COMMANDS = {
    "help": Command((*EDGESEARCH, "--help"), 0.5, repeats=9),
    "profile": Command((*EDGESEARCH, "profile", "quickstart", "output_dir={folder}"), 60),
    "quickstart": Command((*EDGESEARCH, "run", "quickstart", "output_dir={folder}"), 300, 3e9),
    "tests": Command((sys.executable, "-m", "pytest", "-q"), 360),
}


def run_once(arguments: tuple[str, ...]) -> tuple[float, int]:
    """Wall time in seconds and peak resident memory in bytes of a command."""
    with tempfile.TemporaryDirectory() as folder:
        filled = [argument.replace("{folder}", folder) for argument in arguments]
        start = time.perf_counter()
        process = subprocess.Popen(
            filled, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        duration = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(filled)} ended with {process.returncode}")
    return duration, usage.ru_maxrss * 1024


def main() -> None:
    """Print a line for each command, and the ratio to its target."""
    print_machine()
    for name in sys.argv[1:] or COMMANDS:
        command = COMMANDS[name]
        figures = [run_once(command.arguments) for _ in range(command.repeats)]
        duration = statistics.median(figure[0] for figure in figures)
        memory = max(figure[1] for figure in figures)
        bound = "" if command.target_bytes is None else f" (target {command.target_bytes / 1e9} GB)"
        print(
            f"{name:>10}: {duration:7.2f} s, {duration / command.target_s:.2f} of the target of "
            f"{command.target_s:g} s; peak memory {memory / 1e9:.2f} GB{bound}",
            flush=True,
        )


if __name__ == "__main__":
    main()
