"""From what a command raises to a message and an exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, TypeVar

import typer

from devices.signals import StopSignals
from edgesearch.errors import (
    ConfigError,
    Interrupted,
    ProcessFailed,
    ProcessStopped,
    StageError,
    UserError,
    UserNotice,
)

Result = TypeVar("Result")
OUR_FAULT, USERS_FAULT, STOPPED = 1, 2, 130
ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
SECONDS_TO_SPEAK = 5.0
GO_ON = "Run the same command again to go on."
SHARED = ("pretrain", "search", "rank")
"""Commands that several processes do together."""


def is_first_process() -> bool:
    """Whether this is the process that speaks, of those that torchrun or the like started."""
    return processes() == 1 or os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """How many processes torchrun or the like started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_processes(command: str) -> None:
    """Refuse several processes for a command that makes no use of them.

    Raises:
        ProcessFailed: It is one of several, and not the first.
        StageError: It is the first of several.
    """
    if command in SHARED or processes() == 1:
        return
    if not is_first_process():
        raise ProcessFailed("the first process says why")
    raise StageError(
        f"one process for `edgesearch {command}`",
        f"{processes()}",
        f"Run {', '.join(SHARED)} with `torchrun … -m edgesearch`, and the rest without torchrun.",
    )


def guarded(work: Callable[[], Result], as_json: bool) -> Result:
    """Do the work of a command.

    Raises:
        typer.Exit: With 2 if something of the user's has to be mended, 130 if the work was
            stopped by SIGINT or SIGTERM, 1 if the fault is ours.
    """
    with _notices_as_lines(), StopSignals(interrupt=True) as stops:
        try:
            return work()
        except typer.BadParameter:
            raise
        except (Interrupted, KeyboardInterrupt) as stop:
            raise _stopped(stop) from None
        except ProcessFailed:
            raise _after_the_one_that_speaks(USERS_FAULT) from None
        except Exception as error:
            if stops.received:  # libraries turn an interrupt into errors of their own
                raise _stopped(KeyboardInterrupt()) from None
            raise _exit_after(error, as_json) from error


@contextmanager
def _notices_as_lines() -> Iterator[None]:
    """While active, a notice is a line on standard error, which is there once."""
    shown = set()

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserNotice)
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, UserNotice):
                others(message, category, filename, lineno, file, line)
            elif str(message) not in shown and is_first_process():
                shown.add(str(message))
                print(f"note: {message}", file=sys.stderr, flush=True)

        warnings.showwarning = show
        yield


def _exit_after(error: Exception, as_json: bool) -> typer.Exit:
    if isinstance(error, ConfigError) and not is_first_process():  # the same in all
        return _after_the_one_that_speaks(USERS_FAULT)
    if isinstance(error, UserError):
        return _failed(error.required, error.found, error.remedy, as_json)
    if isinstance(error, OSError) and error.errno in ENVIRONMENT:
        place = f" {error.filename}" if error.filename else ""
        return _failed(
            f"a place with room that can be written to{place}",
            error.strerror or str(error),
            f"Free space or choose another output_dir. {GO_ON}",
            as_json,
        )
    return _our_fault()


def _stopped(stop: Interrupted | KeyboardInterrupt) -> typer.Exit:
    before_they_met = isinstance(stop, KeyboardInterrupt) and not is_first_process()
    if isinstance(stop, ProcessStopped) or before_they_met:
        return _after_the_one_that_speaks(STOPPED)
    print(f"\n{str(stop) or 'stopped'}. {GO_ON}", file=sys.stderr)
    return typer.Exit(STOPPED)


def _after_the_one_that_speaks(code: int) -> typer.Exit:
    """Leave late: torchrun ends all processes, also one that is about to speak, with the first."""
    with suppress(KeyboardInterrupt):
        time.sleep(SECONDS_TO_SPEAK)
    return typer.Exit(code)


def _failed(required: str, found: str, remedy: str, as_json: bool) -> typer.Exit:
    print(f"error: required: {required}\n  found: {found}\n  {remedy.strip()}", file=sys.stderr)
    if as_json:
        fault = {"required": required, "found": found, "remedy": remedy.strip()}
        print(json.dumps({"error": fault}))
    return typer.Exit(USERS_FAULT)


def _our_fault() -> typer.Exit:
    traceback.print_exc()
    print("error: this is a fault of edgesearch; please report it with the above", file=sys.stderr)
    return typer.Exit(OUR_FAULT)
