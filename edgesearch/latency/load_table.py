"""Loads the latency table of a device, and reports how it differs from device and space."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from devices import DeviceSpec, Fingerprint, installed_version, take_fingerprint
from devices.values import in_yaml
from edgesearch.errors import StageError
from edgesearch.events import Event, Report, silent
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.table import current_correction, current_head, steadiness_of
from edgesearch.latency.workloads import block_keys
from edgesearch.space import SearchSpace
from edgesearch.tasks.head_costs import TaskHead
from profilers import LatencyTable

OTHER_SPEED = 0.05
"""Speed difference from the machine of an accepted table that is reported, as a share."""
DOUBTFUL = 1.25
"""Ratio of slowdowns, networks to reference workload, that is reported (also its inverse). Computed
from the fastest runs, it is within a few per cent of 1 even on a busy machine."""


def corrected_model(
    space: SearchSpace, table: LatencyTable, head: TaskHead | None = None
) -> LatencyModel:
    """A model with the last correction that was fitted for the space.

    With a head it predicts whole models, without one backbones.
    """
    fit = None if head is None else current_head(space, table, head)
    return LatencyModel.from_table(space, table, current_correction(space, table), head, fit)


def load_table(
    path: Path,
    space: SearchSpace,
    device: DeviceSpec,
    accept: Collection[str] = (),
    stage: str = "profile",
    report: Report = silent,
    *,
    elsewhere: bool = False,
    head: TaskHead | None = None,
) -> LatencyTable:
    """Load the table of a device; check that it fits device and space.

    For a local device (unless `elsewhere`, possibly another machine), chip, versions and so on of
    this machine are compared too, as far as they are known without its GPU. Remote devices are
    compared when they are measured. The table must contain the blocks of the space and a correction
    fitted for it, with a head also whole models that have it.

    Fields in `accept` may differ; later measurements are scaled by what both machines have
    measured. A table of another runtime, provider, precision, batch or thread count can only be
    read.

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
    steadiness = steadiness_of(table)
    if not steadiness.settled:
        report(Event(stage, f"warning: {path}: {steadiness.of_table}"))
    known = set(table.keys()) | set(table.errors)
    lacking = [key for key in block_keys(space) if key not in known]
    if lacking or current_correction(space, table) is None:
        found = f"a table without {len(lacking)} of its blocks, such as {lacking[:1]}"
        raise StageError(
            f"a latency table of the space {space.name!r} at {path}",
            found if lacking else "blocks, but no correction for this space",
            "Run `edgesearch profile` with the same configuration first.",
        )
    if head is not None and current_head(space, table, head) is None:
        raise StageError(
            f"latencies of whole models with the {head} (finetune.task {head.task}) in {path}",
            "latencies of backbones only, or of whole models with another head",
            "Run `edgesearch profile` with the same configuration first: it adds what is missing.",
        )
    return table


def _this_machine(device: DeviceSpec) -> Fingerprint:
    """Fingerprint of this machine; an uninstalled runtime has an empty version.

    Which processors this process may use is left out: it matters only while measuring.
    """
    version = installed_version(device.runtime) or ""
    found = take_fingerprint(device.runtime, version, {"provider": device.provider})
    return replace(found, affinity=(), processors=None)


def tell_accepted(table: LatencyTable, stage: str, report: Report) -> None:
    """Report the accepted differences between a table and the device."""
    for mismatch in table.accepted:
        text = (
            f"accepted by profile.accept: the table has {mismatch.field} "
            f"{in_yaml(mismatch.found)}, not {in_yaml(mismatch.wanted)}"
        )
        report(Event(stage, text))


def tell_speed(table: LatencyTable, stage: str, report: Report) -> None:
    """Report if the machine of the last session is not as fast as that of the first.

    All latencies are scaled to the first session's machine, also after `accept`.
    """
    factor = table.session_scale(table.sessions[-1].number)
    if abs(factor - 1) > OTHER_SPEED:
        text = (
            f"the machine of the table's last session is {factor:.2f} times as fast as that of "
            "its first session; all latencies are scaled to the first"
        )
        report(Event(stage, text))


def tell_doubt(table: LatencyTable, stage: str, report: Report) -> None:
    """Report if networks of a table slowed down or sped up much more than the reference workload.

    Sessions are scaled by everything they share, of which the reference is a small part. If
    everything else in the table were too fast, this machine would merely look slow and predictions
    would seem right.
    """
    slowdown = table.slowdown()
    if slowdown and not 1 / DOUBTFUL <= slowdown.work / slowdown.reference <= DOUBTFUL:
        text = (
            f"warning: since the first session of {table.path}, the fastest runs of its networks "
            f"became {slowdown.work:.2f} times as long, those of the reference workload "
            f"{slowdown.reference:.2f} times: the table may be outdated, or the machine was busy. "
            "If it was idle, move the table away, profile and search again"
        )
        report(Event(stage, text))
