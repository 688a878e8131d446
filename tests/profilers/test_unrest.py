"""How far medians lie above low quantiles, on tables that were written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profilers import LatencyTable, MissingKeyError

Write = Callable[..., Path]


def rounds(key: str, kind: str, ratio: float, base_ms: float, session: int = 1) -> list[Any]:
    """Ten rounds: their minima are alike, their medians are `ratio` times as long."""
    samples_ms = [base_ms, ratio * base_ms, 2 * base_ms]
    facts = {"key": key, "kind": kind, "session": session, "samples_ms": samples_ms}
    return [{**facts, "round": number, "anchor": session > 1} for number in range(1, 11)]


def middle(table: LatencyTable, keys: list[str]) -> float:
    return float(np.median([ratio for _, ratio in table.median_ratios(keys)]))


def test_is_the_same_whatever_the_network_takes(write: Write) -> None:
    lines = [*rounds("network/a", "network", 1.1, 2.0), *rounds("network/b", "network", 1.1, 50.0)]
    table = LatencyTable.load(write(*lines))
    assert middle(table, ["network/a", "network/b"]) == pytest.approx(1.1)


def test_a_busier_session_is_compared_by_what_both_have_measured(write: Write) -> None:
    key = "network/a"
    later = [*rounds(key, "network", 1.2, 4.0, 2), *rounds("network/b", "network", 1.2, 8.0, 2)]
    later[10:] = [{**line, "anchor": False} for line in later[10:]]
    table = LatencyTable.load(write(*rounds(key, "network", 1.1, 2.0), *later))
    assert table.low_quantile_ms("network/b", with_overhead=True) == pytest.approx(4.0, rel=0.01)
    assert table.median_ms("network/b") == pytest.approx(1.1 * 4.0)
    assert middle(table, [key, "network/b"]) == pytest.approx(1.1)


def test_a_network_with_many_rounds_counts_as_much_as_others(write: Write) -> None:
    # Winners that are slow get far more rounds than all the rest.
    lines = [*rounds("network/a", "network", 1.1, 2.0), *rounds("network/b", "network", 1.1, 3.0)]
    many = [line for _ in range(10) for line in rounds("winner/c", "network", 1.9, 4.0)]
    many = [{**line, "round": number} for number, line in enumerate(many, start=1)]
    table = LatencyTable.load(write(*lines, *many))
    keys = ["network/a", "network/b", "winner/c"]
    assert middle(table, keys) == pytest.approx(1.1)


def test_networks_that_were_not_asked_for_tell_nothing(write: Write) -> None:
    lines = [
        *rounds("network/a", "network", 1.1, 2.0),
        *rounds("network/b", "network", 1.5, 2.0, 2),
        *rounds("validation/c", "validation", 1.4, 2.0),
    ]
    assert middle(LatencyTable.load(write(*lines)), ["network/a"]) == pytest.approx(1.1)


def test_a_network_that_is_not_there_is_named(write: Write) -> None:
    table = LatencyTable.load(write(*rounds("network/a", "network", 1.1, 2.0)))
    with pytest.raises(MissingKeyError, match="'network/b'"):
        table.median_ratios(["network/b"])
