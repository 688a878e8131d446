"""The group of commands: where options may stand, and how a wrong call is answered."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from devices.values import did_you_mean
from edgesearch.cli.guard import fail
from edgesearch.errors import UserError

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's, or Typer's own copy of it."""
_OF_ALL = ("--help", "-h", "--version")
"""Options that are not of one command."""


class Commands(TyperGroup):
    """Options of a command may stand before it too; wrong calls have messages like other errors."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what follows `edgesearch`; with nothing, show the help."""
        if "" in args:  # the folder here would be taken for it
            found = "an empty argument, as of a variable of the shell that is not set"
            raise UsageError(found, ctx)
        place = next((place for place, each in enumerate(args) if each in self.commands), 0)
        before = args[:place]
        if place and before[0].startswith("-") and not set(before) & set(_OF_ALL):
            args = [args[place], *before, *args[place + 1 :]]
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of a call.

        Raises:
            UserError: There is no such command.
        """
        name = args[0]
        if not name.startswith("-") and name not in self.commands:
            program = ctx.command_path
            raise UserError(
                f"a command of `{program}`",
                name,
                f"{did_you_mean(name, [*self.commands])} `{program} --help` lists them.".lstrip(),
            )
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; the process ends with its exit code."""
        given = sys.argv[1:] if args is None else list(args)
        options = (prog_name, complete_var, False, windows_expand_args)
        if not standalone_mode:
            return super().main(given, *options, **extra)
        try:
            code = super().main(given, *options, **extra)
        except (UsageError, UserError) as error:
            known = error if isinstance(error, UserError) else _explained(error, given)
            code = fail(known, as_json="--json" in given).exit_code
        except typer.Abort:
            code = 130
        sys.exit(code or 0)


def _explained(error: Any, given: Sequence[str]) -> UserError:
    """The error of a wrong call in required, found, what to do."""
    command = "edgesearch" if error.ctx is None else error.ctx.command_path
    option = getattr(error, "option_name", None)
    if option is None:
        found = error.format_message().rstrip(".")
        found = found[:1].lower() + found[1:]
        return UserError(
            f"a call that `{command}` takes", found, f"`{command} --help` shows what it takes."
        )
    # Only the first letter of `-photos` is named.
    whole = next((each for each in given if each.split("=")[0].startswith(option)), option)
    parameters = [] if error.ctx is None else error.ctx.command.params
    names = (name for each in parameters for name in each.opts if name.startswith("--"))
    # Without dashes, which would make any two options alike.
    known = {name.lstrip("-"): name for name in ("--help", *names)}
    guess = did_you_mean(whole.split("=")[0].lstrip("-"), known)
    remedy = f"{guess} `{command} --help` shows the options.".lstrip()
    if len(whole) > 2 and not whole.startswith("--"):
        remedy += f" A file or folder whose name begins with a dash is written ./{whole}"
    return UserError(f"an option of `{command}`", whole, remedy)
