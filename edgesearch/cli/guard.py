"""From what a command raises to a message and an exit code."""

from __future__ import annotations

import errno
import json
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

import typer

from edgesearch.errors import Interrupted, UserError

Result = TypeVar("Result")
OUR_FAULT, USERS_FAULT, STOPPED = 1, 2, 130
ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
GO_ON = "Run the same command again to go on."


def guarded(work: Callable[[], Result], as_json: bool) -> Result:
    """Do the work of a command.

    Raises:
        typer.Exit: With 2 if something of the user's has to be mended, 130 if the work was
            stopped by SIGINT or SIGTERM, 1 if the fault is ours.
    """
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        return work()
    except typer.BadParameter:
        raise
    except UserError as error:
        raise _failed(error.required, error.found, error.remedy, as_json) from None
    except OSError as error:
        if error.errno not in ENVIRONMENT:
            raise _our_fault() from error
        place = f" {error.filename}" if error.filename else ""
        raise _failed(
            f"a place with room that can be written to{place}",
            error.strerror or str(error),
            f"Free space or choose another output_dir. {GO_ON}",
            as_json,
        ) from None
    except (Interrupted, KeyboardInterrupt) as stop:
        text = str(stop) or "stopped"
        print(f"\n{text}. {GO_ON}", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    except Exception as error:
        raise _our_fault() from error


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


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
