"""Questions to the user, on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgesearch.cli.console import visible
from edgesearch.errors import UserError

if TYPE_CHECKING:
    from edgesearch.stages.clean import SetAside
    from edgesearch.stages.init import Question


def can_ask() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def ask_on_terminal(question: Question) -> str:
    """Ask until the answer is accepted; an empty line is the default."""
    while True:
        answer = _read(f"{question.text} [{question.default}]: ") or question.default
        try:
            question.check(answer)
        except UserError as error:
            print(visible(f"  required: {error.required}. {error.remedy}"), file=sys.stderr)
        else:
            return answer


def confirm(found: tuple[SetAside, ...]) -> bool:
    """Show what would be removed, and ask for consent."""
    from edgesearch.words import size_words

    for each in found:
        print(
            visible(f"{each.path} ({size_words(each.size_bytes)}): {each.about}"), file=sys.stderr
        )
    return _read("Remove all of these? [y/N]: ").lower() in ("y", "yes")


def _read(prompt: str) -> str:
    """A line of the terminal; the prompt is on standard error, as output may go elsewhere."""
    print(visible(prompt), end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:  # the end of input
        print(file=sys.stderr)
    return line.strip()
