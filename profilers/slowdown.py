"""How fast the machine of a table is now, by the reference workload alone."""

from __future__ import annotations

from profilers.latency_table import LatencyTable
from profilers.steadiness import base_level_ms
from profilers.workload import REFERENCE_KEY


def reference_ratio(table: LatencyTable) -> float | None:
    """Return what the reference workload took in the last session, as a multiple of the first.

    Both are what it takes undisturbed. Sessions are joined by all that they share, of which the
    reference is one among many: where the two disagree, blocks and networks were measured under
    other conditions, or on another machine.

    Args:
        table: The table.

    Returns:
        The multiple; None if it was not measured in both sessions.
    """
    sessions = [session.number for session in table.sessions]
    minima_ms: dict[int, list[float]] = {}
    if REFERENCE_KEY in table.kinds():
        for (session, _), samples_ms in table.samples_ms(REFERENCE_KEY).items():
            fastest_ms = min(samples_ms) / table.session_scale(session)
            minima_ms.setdefault(session, []).append(fastest_ms)
    if not sessions or not {sessions[0], sessions[-1]} <= minima_ms.keys():
        return None
    first, last = (base_level_ms(minima_ms[session]) for session in (sessions[0], sessions[-1]))
    return last / first
