"""What the reference workload says of a machine, on tables that were written by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from profilers import LatencyTable, reference_ratio
from profilers.workload import REFERENCE_KEY

Write = Callable[..., Path]


def rounds(key: str, kind: str, ms: float, session: int) -> list[dict[str, Any]]:
    facts = {"key": key, "type": kind, "session": session, "samples_ms": [ms, 1.1 * ms]}
    return [{**facts, "round": number, "space_hash": "cafe"} for number in range(1, 5)]


def reference(ms: float, session: int) -> list[dict[str, Any]]:
    return rounds(REFERENCE_KEY, "reference", ms, session)


def test_it_is_its_own_whatever_networks_took(write: Write) -> None:
    lines = []
    for session, network_ms, reference_ms in ((1, 2.0, 1.0), (2, 3.0, 9.9), (3, 5.0, 1.2)):
        lines += reference(reference_ms, session)
        for name in "abc":
            prefix, kind = ("", "network") if session == 1 else ("anchor/", "anchor")
            lines += rounds(f"{prefix}network/{name}", kind, network_ms, session)
    table = LatencyTable.load(write(*lines))
    assert table.session_scale(3) == pytest.approx(2 / 5)
    assert reference_ratio(table) == pytest.approx(1.2)


def test_one_session_is_as_fast_as_itself(write: Write) -> None:
    assert reference_ratio(LatencyTable.load(write(*reference(1.0, 1)))) == pytest.approx(1)


def test_without_it_nothing_is_said(write: Write) -> None:
    blocks = [*rounds("block", "block", 1.0, 1), *rounds("block", "block", 1.0, 2)]
    assert reference_ratio(LatencyTable.load(write(*blocks))) is None
    assert reference_ratio(LatencyTable.load(write(*blocks, *reference(1.0, 2)))) is None
    assert reference_ratio(LatencyTable.load(write())) is None
