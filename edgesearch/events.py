"""Progress events that stages report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """A progress event of a stage.

    Attributes:
        done: Units of work done; None if nothing is counted.
        within: Whether the units are parts of a larger counted unit, such as the steps of an epoch.
        detail: Whether only those who want to know everything should see it.
    """

    stage: str
    message: str
    done: int | None = None
    total: int | None = None
    within: bool = False
    detail: bool = False


Report = Callable[[Event], None]


def teller(stage: str, report: Report) -> Callable[[str], None]:
    """A function that reports messages without counts for a stage."""
    return lambda message: report(Event(stage, message))


def silent(event: Event) -> None:
    """Ignore an event."""
