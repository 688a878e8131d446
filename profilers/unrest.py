"""How restless the machine of a table is while it runs whole networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from profilers import statistics
from profilers.latency_record import ANCHOR
from profilers.latency_table import LatencyTable


def median_ratio(table: LatencyTable, keys: Sequence[str]) -> float:
    """Return how far medians lie above low quantiles: the median of this ratio over all networks.

    A network counts once in each session that it was measured in, also as an anchor beside later
    work: a machine is known the better, the more of its hours are looked at. Rounds do not count:
    most of them are made for winners that are slow.

    Args:
        table: The table.
        keys: Of whole networks, at least one.

    Raises:
        MissingKeyError: If a key was not measured.
    """
    anchors = set(table.keys("anchor"))
    ratios = []
    for key in [*keys, *(ANCHOR + key for key in keys if ANCHOR + key in anchors)]:
        sessions: dict[int, list[list[float]]] = {}
        for (session, _), samples_ms in table.samples_ms(key).items():
            sessions.setdefault(session, []).append(samples_ms)
        for rounds in sessions.values():
            low_ms = statistics.low_quantile_ms(rounds)
            ratios.append(np.median([np.median(samples_ms) / low_ms for samples_ms in rounds]))
    return float(np.median(ratios))
