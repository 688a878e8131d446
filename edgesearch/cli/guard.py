"""Maps the exceptions of a command to messages and exit codes."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, TypeVar

import typer

from devices.files import no_permission
from devices.signals import StopSignals
from edgesearch.cli.console import STANDARD_OUTPUT, visible
from edgesearch.cli.progress import Verbosity
from edgesearch.errors import (
    ConfigError,
    Interrupted,
    ProcessesError,
    ProcessFailed,
    ProcessStopped,
    StageError,
    UserError,
    UserNotice,
    lack_of_memory,
)

Result = TypeVar("Result")
OUR_FAULT, USERS_FAULT, STOPPED = 1, 2, 130
ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
EXIT_DELAY_S = 5.0
GO_ON = "Run the same command again to continue."
SMALLER = (
    "Set a smaller batch_size (of pretrain, search or finetune) or device.batch, choose smaller "
    "resolutions or widths in the section space, stop other programs, or raise the limit on "
    f"memory if there is one. {GO_ON}"
)
AT_ONCE_S = 0.3
"""A stop that takes longer is acknowledged before it is done."""
SHARED = ("pretrain", "finetune", "search", "rank")
"""Commands that several processes share."""


def is_first_process() -> bool:
    """Whether this process prints, of those that torchrun or a similar launcher started."""
    return processes() == 1 or os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """Number of processes that torchrun or a similar launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_processes(command: str) -> None:
    """Refuse several processes for a command that uses only one.

    Raises:
        ProcessFailed: This is not the first of several processes.
        StageError: This is the first of several processes.
    """
    if command in SHARED or processes() == 1:
        return
    if not is_first_process():
        raise ProcessFailed("the first process reports why")
    raise StageError(
        f"one process for `edgesearch {command}`",
        str(processes()),
        f"Run {', '.join(SHARED)} with `torchrun … --no-python edgesearch`, and the rest without "
        "torchrun.",
    )


def guarded(
    work: Callable[[], Result], as_json: bool, verbosity: Verbosity = Verbosity.USUAL
) -> Result:
    """Do the work of a command; a signal that stops it is acknowledged at once.

    Raises:
        typer.Exit: Code 2 for an error that the user can mend, 130 after SIGINT or SIGTERM, 1 for a
            bug.
    """
    with (
        _notices_as_lines(verbosity),
        StopSignals(interrupt=True) as stops,
        _signals_acknowledged(),
    ):
        try:
            return work()
        except typer.BadParameter:
            raise
        except (Interrupted, KeyboardInterrupt) as stop:
            # Nobody else reports that a process has died, after which torchrun stops the others.
            if (death := _ended_process(stop)) is not None:
                raise _told(death, as_json) from death
            raise _stopped(stop) from None
        except ProcessFailed:
            raise _exit_late(USERS_FAULT) from None
        except Exception as error:
            # Libraries wrap an interrupt in their own errors.
            if stops.received and not isinstance(error, ProcessesError):
                raise _stopped(KeyboardInterrupt()) from None
            raise _told(error, as_json) from error


def _ended_process(stop: BaseException) -> ProcessesError | None:
    """The end of another process that was being handled when a signal came.

    None if that process was stopped, which it reports itself.
    """
    before = None if isinstance(stop, ProcessStopped) else stop.__context__
    while before is not None and not isinstance(before, ProcessesError):
        before = before.__context__
    return before


def _told(error: Exception, as_json: bool) -> typer.Exit:
    """The exit after an error, whose message is printed to its end even if a signal comes."""
    with StopSignals():
        return exit_after(error, as_json)


@contextmanager
def _signals_acknowledged() -> Iterator[None]:
    """Say within a fraction of a second that a signal was received, whatever Python is busy with.

    The interpreter notes a signal at once, but handles it only after the call that it is in, which
    may be a step of a training.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted, wakes = socket.socketpair()
    for end in (noted, wakes):
        end.setblocking(False)
    former = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    ended = threading.Event()
    # Forked processes inherit the socket: a signal that reaches the whole group is told once.
    threading.Thread(target=_acknowledge, args=(noted, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(former)
        for end in (wakes, noted):
            end.close()


def _acknowledge(noted: socket.socket, ended: threading.Event) -> None:
    with suppress(OSError, ValueError):  # closed meanwhile
        while not ended.is_set():
            select.select([noted], [], [], 1.0)
            try:
                numbers = noted.recv(64)
            except BlockingIOError:
                continue
            stops = {signal.SIGINT, signal.SIGTERM} & set(numbers)
            if stops and not ended.wait(AT_ONCE_S) and is_first_process():
                print(
                    f"\n{signal.Signals(stops.pop()).name} received: stopping after what is in "
                    "hand; once more stops at once",
                    file=sys.stderr,
                    flush=True,
                )
                return


@contextmanager
def _notices_as_lines(verbosity: Verbosity) -> Iterator[None]:
    """Print each distinct `UserNotice` once, as a line on standard error.

    Warnings of libraries are for their developers: they are shown to those who want to know all.
    """
    shown = set()

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserNotice)

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            ours = issubclass(category, UserNotice)
            least = Verbosity.USUAL if ours else Verbosity.VERBOSE
            if verbosity >= least and str(message) not in shown and is_first_process():
                shown.add(str(message))
                text = f"note: {message}"
                if not ours:
                    text = f"{category.__name__} of a library ({filename}:{lineno}): {message}"
                print(visible(text), file=sys.stderr, flush=True)

        warnings.showwarning = show
        yield


def exit_after(error: Exception, as_json: bool) -> typer.Exit:
    """Print the message of an error; the exit with its code."""
    if isinstance(error, ConfigError) and not is_first_process():  # the same error in all processes
        return _exit_late(USERS_FAULT)
    if (found := _lack_of_memory(error)) is not None:
        required = "enough memory for this command" + _usable_memory()
        return fail(UserError(required, found, SMALLER), as_json)
    if isinstance(error, UserError):
        return fail(error, as_json)
    if isinstance(error, OSError) and error.errno in ENVIRONMENT:
        found = error.strerror or str(error)
        if error.filename == STANDARD_OUTPUT:
            required, remedy = "a standard output that can be written", "Send it elsewhere."
            return fail(UserError(required, found, remedy), as_json=False)
        if error.errno in (errno.EACCES, errno.EPERM):
            return fail(no_permission(error), as_json)
        place = f" at {error.filename}" if error.filename else ""
        required = f"a disk with free space that can be written{place}"
        remedy = f"Free space or choose another output_dir. {GO_ON}"
        return fail(UserError(required, found, remedy), as_json)
    traceback.print_exc()
    print("error: this is a bug in edgesearch; please report it with the above", file=sys.stderr)
    return typer.Exit(OUR_FAULT)


def _lack_of_memory(error: BaseException) -> str | None:
    """What could not be allocated, if that is why an error was raised."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:  # two errors may be each other's cause
        seen.add(id(cause))
        # The words of our own errors are for the user; what they derive from is what happened.
        if not isinstance(cause, UserError) and (found := lack_of_memory(cause)) is not None:
            return found
        # Libraries that handle one may fail again, for another reason as it seems.
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def _usable_memory() -> str:
    """How much memory this process may use, in words; "" where the system does not tell."""
    from edgesearch.run.room import machine_memory

    memory = machine_memory()
    return f"; {memory / 2**30:,.1f} GiB can be used" if memory else ""


def _stopped(stop: Interrupted | KeyboardInterrupt) -> typer.Exit:
    is_helper = isinstance(stop, KeyboardInterrupt) and not is_first_process()
    if isinstance(stop, ProcessStopped) or is_helper:
        return _exit_late(STOPPED)
    print(visible(f"\n{str(stop) or 'stopped'}. {GO_ON}"), file=sys.stderr)
    return typer.Exit(STOPPED)


def _exit_late(code: int) -> typer.Exit:
    """Exit late: when one process ends, torchrun kills the others, even one about to print."""
    with suppress(KeyboardInterrupt):
        time.sleep(EXIT_DELAY_S)
    return typer.Exit(code)


def fail(error: UserError, as_json: bool) -> typer.Exit:
    """Print the message of an error that the user can mend; the exit with its code."""
    remedy = error.remedy.strip()
    text = f"error: required: {error.required}\n  found: {error.found}\n  {remedy}"
    print(visible(text), file=sys.stderr)
    if as_json:
        fault = {"required": error.required, "found": error.found, "remedy": remedy}
        print(json.dumps({"error": fault}))
    return typer.Exit(USERS_FAULT)
