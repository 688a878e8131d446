"""What a stage tells of the table that it takes: fields accepted, machines faster or slower."""

from __future__ import annotations

from edgesearch.events import Event, Report
from profilers import LatencyTable

OTHER_SPEED = 0.05
"""A machine that differs by more than this share from that of an accepted table is told of."""
DOUBTFUL = 1.25
"""A table is doubted if its networks have slowed down so many times as much as the reference
workload, or that much less. By the fastest runs, it is within a few per cent of 1 on a busy machine
as well."""


def tell_accepted(table: LatencyTable, stage: str, report: Report) -> None:
    """Tell in which fields a table differs from the device, as was accepted."""
    for mismatch in table.accepted:
        text = (
            f"accepted, as profile.accept says: the table is of {mismatch.field} "
            f"{mismatch.found!r}, not {mismatch.wanted!r}"
        )
        report(Event(stage, text))


def tell_speed(table: LatencyTable, stage: str, report: Report) -> None:
    """Tell if the machine of the last session is not as fast as that of the first.

    All figures are those of the first: a table of another machine, which was accepted, makes of
    what is measured here what that machine would have taken.
    """
    factor = table.session_scale(table.sessions[-1].number)
    if abs(factor - 1) > OTHER_SPEED:
        text = (
            f"the machine of the table's last session is {factor:.2f} times as fast as that of "
            "its first, of which all latencies are given"
        )
        report(Event(stage, text))


def tell_doubt(table: LatencyTable, stage: str, report: Report) -> None:
    """Tell if the networks of a table took much longer or less again while the reference did not.

    Sessions are joined by all that they share, of which the reference is one among many. If all
    else in the table was too fast, that makes a slower machine of this one, and predictions seem to
    hold.
    """
    slowdown = table.slowdown()
    if slowdown and not 1 / DOUBTFUL <= slowdown.work / slowdown.reference <= DOUBTFUL:
        text = (
            f"the fastest runs of networks of {table.path} took {slowdown.work:.2f} times as long "
            f"as when it was begun, those of the reference workload {slowdown.reference:.2f} "
            "times: the table may not be what this machine does now, or it was busy, then or now. "
            "If it was not, move the table away, profile and search again"
        )
        report(Event(stage, text))
