"""Whether the machine of a table became slower for all work alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profilers.latency_table import LatencyTable
from profilers.table_identity import machine_mismatches
from profilers.workload import OVERHEAD_KEY, REFERENCE_KEY


@dataclass(frozen=True)
class Slowdown:
    """How many times as long something took in the last session of a table as in its first.

    Attributes:
        work: What both have measured, networks and blocks; the median of them.
        reference: The reference workload.
    """

    work: float
    reference: float


def slowdown_of(table: LatencyTable) -> Slowdown | None:
    """Compare the last session of a table with its first, by the fastest run of each key.

    A busy machine slows down most runs of a session, and large networks more than the small
    reference, but hardly ever all of the hundreds of runs of a key.

    Args:
        table: The table.

    Returns:
        None if there is nothing to compare: one session, of two machines, or without the
        reference or anything else in both.
    """
    if len(table.sessions) < 2:
        return None
    first, last = table.sessions[0], table.sessions[-1]
    if machine_mismatches(first.fingerprint, last.fingerprint):
        return None
    fastest_ms = table.fastest_runs_ms()
    former, latter = fastest_ms[first.number], fastest_ms[last.number]
    ratios = {key: latter[key] / former[key] for key in latter.keys() & former.keys()}
    reference = ratios.pop(REFERENCE_KEY, None)
    ratios.pop(OVERHEAD_KEY, None)  # too short to tell anything
    if reference is None or not ratios:
        return None
    return Slowdown(float(np.median(list(ratios.values()))), reference)
