"""Loads the latency table of a device: compares it with device and space, reports what differs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from devices import DeviceSpec, Fingerprint, installed_version, take_fingerprint
from edgesearch.errors import StageError
from edgesearch.events import Event, Report, silent
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.table import current_correction
from edgesearch.latency.workloads import block_keys
from edgesearch.space import SearchSpace
from profilers import LatencyTable

OTHER_SPEED = 0.05
"""A machine that differs by more than this share from that of an accepted table is told of."""
DOUBTFUL = 1.25
"""A table is doubted if its networks have slowed down so many times as much as the reference
workload, or that much less. By the fastest runs, it is within a few per cent of 1 on a busy machine
as well."""


def corrected_model(space: SearchSpace, table: LatencyTable) -> LatencyModel:
    """Predicts by the last correction that was fitted for a space."""
    return LatencyModel.from_table(space, table, current_correction(space, table))


def load_table(
    path: Path,
    space: SearchSpace,
    device: DeviceSpec,
    accept: Collection[str] = (),
    stage: str = "profile",
    report: Report = silent,
    *,
    elsewhere: bool = False,
) -> LatencyTable:
    """The table of a device, checked to be of this device and space.

    A device that is reached locally is this machine: then chip, versions and so on are compared,
    too, as far as they are known without its GPU. Boards are compared by what measures on them.

    Args:
        path: The table.
        space: Its blocks have to be in it, and a correction that was fitted for it: neither can be
            taken from another space.
        device: What it has to be of.
        accept: Fields of a device or its fingerprint in which it may differ from this one. What is
            measured into it later is made comparable by what both have measured. A table of
            another runtime, provider, precision, batch or thread count can only be read.
        stage: The stage that wants it.
        report: Is told in what it differs.
        elsewhere: The device may be another machine, however it is reached.

    Raises:
        StageError: There is no table, or it is of another space.
        TableMismatchError: It is of another device, runtime, precision, batch or thread count.
    """
    if not path.exists():
        raise StageError(
            f"the latency table of {device.name} at {path}",
            "no such file",
            "Run `edgesearch profile` with the same configuration first.",
        )
    here = _this_machine(device) if device.transport == "local" and not elsewhere else None
    table = LatencyTable.load(path, expect=device, expect_fingerprint=here, accept=accept)
    tell_accepted(table, stage, report)
    known = set(table.keys()) | set(table.errors)
    lacking = [key for key in block_keys(space) if key not in known]
    if lacking or current_correction(space, table) is None:
        found = f"{len(lacking)} of its blocks are not in it, the first being {lacking[:1]}"
        raise StageError(
            f"a latency table of the space {space.name!r} at {path}",
            found if lacking else "blocks, but no correction for this space",
            "Run `edgesearch profile` with the same configuration first.",
        )
    return table


def _this_machine(device: DeviceSpec) -> Fingerprint:
    """What there is here for a device; a runtime that is not installed has no version."""
    version = installed_version(device.runtime) or ""
    return take_fingerprint(device.runtime, version, {"provider": device.provider})


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
