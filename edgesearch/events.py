"""What a stage tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Something that a stage has done, for whoever shows it.

    Attributes:
        stage: "profile", "validate", "pretrain", "search", "export", "evaluate", "rank" or
            "summary".
        message: What happened.
        done: Units of work done, None where nothing is counted.
        total: Units of work in all.
        within: Whether the units are parts of one that is counted too, such as an epoch's steps.
    """

    stage: str
    message: str
    done: int | None = None
    total: int | None = None
    within: bool = False


Report = Callable[[Event], None]


def teller(stage: str, report: Report) -> Callable[[str], None]:
    """Tells of a stage what is not counted."""
    return lambda message: report(Event(stage, message))


def silent(event: Event) -> None:
    """Tells nobody."""
