"""A device's latency table as the stages use it: loaded, checked, corrected, told of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from devices import DeviceSpec, Fingerprint, installed_version, take_fingerprint
from edgesearch.errors import StageError
from edgesearch.events import Event, Report, silent
from edgesearch.latency.correction import Correction
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.workloads import block_keys
from edgesearch.space import Architecture, SearchSpace
from profilers import LatencyTable, slowdown_of

OTHER_SPEED = 0.05
"""A machine that differs by more than this share from that of an accepted table is told of."""
DOUBTFUL = 1.25
"""A table is doubted if its networks have slowed down so many times as much as the reference
workload, or that much less. By the fastest runs, it is within a few per cent of 1 on a busy machine
as well."""


def corrected_model(space: SearchSpace, table: LatencyTable) -> LatencyModel:
    """Predicts by the last correction that was fitted for a space."""
    return LatencyModel.from_table(space, table, current_correction(space, table))


def current_correction(space: SearchSpace, table: LatencyTable) -> Correction | None:
    """The last correction that was fitted for a space; None if there is none."""
    values = table.correction(space.space_hash)
    return None if values is None else Correction.from_dict(values)


def keep_correction(
    space: SearchSpace, table: LatencyTable, correction: Correction, **facts: Any
) -> None:
    """Append a correction; facts about the measuring are taken over from the one before.

    Args:
        space: The space that it was fitted for.
        table: Gets the line.
        correction: The correction.
        **facts: `rounds` wanted up to the `last_session`, or errors found in a `validation`.
    """
    before = table.correction(space.space_hash) or {}
    kept: dict[str, Any] = {
        name: before[name] for name in ("rounds", "last_session") if name in before
    }
    table.append_correction(
        {"space_hash": space.space_hash, **kept, **facts, **correction.to_dict()}
    )


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


def table_digest(path: Path) -> str:
    """Tells whether the blocks and networks of a table have been measured anew.

    What the export of a search's own results appends does not count: corrections, winners, and
    what is measured beside them. Nor does another error of what could not run before.
    """
    digest, failed = hashlib.sha256(), set()
    data = path.read_bytes()
    for line in data[: data.rfind(b"\n") + 1].splitlines():  # the last one may be torn
        try:
            values = json.loads(line)
        except ValueError:  # garbage of a torn write, which reading the table drops
            continue
        kind = values.get("type", "block")
        if kind == "block" or (kind == "network" and not is_winner(values["key"])):
            key = values.get("key")  # the header has none
            if "error" not in values:
                failed.discard(key)
            elif key in failed:
                continue
            else:
                failed.add(key)
            digest.update(line)
    return digest.hexdigest()


def winner_key(architecture: Architecture, output: str, session: int) -> str:
    """The key under which an exported network is measured, from a session of measuring on."""
    return f"winner/{output}/{architecture}/{session}"


def is_winner(key: str) -> bool:
    """Whether a key is that of an exported network."""
    return key.startswith("winner/")


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
    slowdown = slowdown_of(table)
    if slowdown and not 1 / DOUBTFUL <= slowdown.work / slowdown.reference <= DOUBTFUL:
        text = (
            f"the fastest runs of networks of {table.path} took {slowdown.work:.2f} times as long "
            f"as when it was begun, those of the reference workload {slowdown.reference:.2f} "
            "times: the table may not be what this machine does now, or it was busy, then or now. "
            "If it was not, move the table away, profile and search again"
        )
        report(Event(stage, text))
