"""Stage profile: from a device and a space to a latency table."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices import DeviceSpec, Fingerprint, installed_version, take_fingerprint
from edgesearch.errors import Interrupted, StageError
from edgesearch.events import Event, Report, silent
from edgesearch.latency.correction import Correction
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.table import (
    NETWORK,
    VALIDATION,
    WINNER,
    correction_notes,
    current_correction,
    describe,
    keep_correction,
    measured_networks,
    steadiness_of,
)
from edgesearch.latency.tell_table import tell_accepted, tell_speed
from edgesearch.latency.workloads import (
    WorkloadFiles,
    block_keys,
    network_key,
    networks_to_measure,
)
from edgesearch.run.layout import Layout
from edgesearch.run.output_folder import output_folder
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.table import write_csv
from profilers import (
    LatencyTable,
    MeasureConfig,
    Steadiness,
    Workload,
    build_table,
    open_meter,
    refuse_other_runs,
)


@dataclass(frozen=True)
class ProfileResult:
    """What the stage left behind.

    Attributes:
        table_path: The latency table.
        blocks: Number of blocks of the space in it.
        failed_blocks: Keys of those that the runtime cannot run.
        size: Number of architectures of the space.
        cannot_run: Number of those that need a block that the runtime cannot run.
        correction: From sums of blocks to whole networks.
        steadiness: How steady the machine was, and whether it settled.
        skipped: Nothing was missing from the table.
        description: What the table is, in words.
        csv_path: Its figures as CSV; None if they were not asked for.
    """

    table_path: Path
    blocks: int
    failed_blocks: tuple[str, ...]
    size: int
    cannot_run: int
    correction: Correction
    steadiness: Steadiness
    skipped: bool
    description: str
    csv_path: Path | None = None


def profile(
    *,
    space: SearchSpace,
    device: DeviceSpec,
    output_dir: Path,
    measure: MeasureConfig,
    networks: int = 12,
    cache_dir: Path | None = None,
    accept: Collection[str] = (),
    retry_errors: bool = False,
    export_csv: bool = False,
    report: Report = silent,
) -> ProfileResult:
    """Measure what is missing from a device's latency table.

    Args:
        space: Its blocks are measured at all its resolutions.
        device: Where they run.
        output_dir: Gets `latency/<device>-<identity>.jsonl`.
        measure: Rounds, runs and bounds of the measuring.
        networks: Whole subnets measured in the same rounds, at least six.
        cache_dir: Keeps exported blocks; the user's cache folder if None.
        accept: Fields in which a table that is there may differ from the device; see `load_table`.
        retry_errors: Whether to try again blocks and networks that could not run before.
        export_csv: Whether to write the figures beside the table, as `<device>-<identity>.csv`.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        UserError: The table is of another device, or something cannot be read or written.
    """
    with output_folder(output_dir):
        layout = Layout(output_dir)
        path = layout.table(device)
        before = LatencyTable.load(path, expect=device, accept=accept) if path.exists() else None
        complete = before is not None and not _missing(
            space, before, networks, measure, retry_errors
        )
        options = dict(spec=device, config=measure, accept=accept, retry_errors=retry_errors)
        if before is not None and complete and device.transport != "local":
            table = before
            tell_accepted(before, "profile", report)
            boards = ", ".join(device.hosts)
            report(Event("profile", f"the table is complete: what {boards} is now was not asked"))
        else:
            with contextlib.closing(open_meter(device)) as meter:
                if before is not None:
                    found = meter.fingerprints[0]
                    before = LatencyTable.load(
                        path, expect=device, expect_fingerprint=found, accept=accept
                    )
                    tell_accepted(before, "profile", report)
                if before is not None and complete:
                    table = before
                else:
                    with WorkloadFiles(
                        space, device, meter.fingerprints[0], layout.networks, cache_dir, report
                    ) as files:
                        table = _measure(
                            path, files, before, networks, report, meter=meter, **options
                        )
        correction = current_correction(space, table)
        model = LatencyModel.from_table(space, table, correction if complete else None)
        if correction is None or not complete:
            done = dict(rounds=measure.rounds, last_session=table.last_session)
            keep_correction(space, table, model.correction, **done)
        if accept:
            tell_speed(table, "profile", report)
        keys = block_keys(space)
        return ProfileResult(
            table_path=path,
            blocks=len(keys),
            failed_blocks=tuple(key for key in keys if key in table.errors),
            size=space.size,
            cannot_run=int(np.isinf(model.predict_all()).sum()),
            correction=model.correction,
            steadiness=steadiness_of(table),
            skipped=complete,
            description=describe(table),
            csv_path=_write_csv(space, table, model) if export_csv else None,
        )


def _write_csv(space: SearchSpace, table: LatencyTable, model: LatencyModel) -> Path:
    """Write the figures of a table, with what is predicted for its networks of a space."""
    predicted_ms = {
        network.key: model.predict(network.architecture).median_ms
        for network in measured_networks(table, space.space_hash, NETWORK, VALIDATION, WINNER)
    }
    return write_csv(table, {key: ms for key, ms in predicted_ms.items() if math.isfinite(ms)})


def _measure(
    path: Path,
    files: WorkloadFiles,
    before: LatencyTable | None,
    networks: int,
    report: Report,
    **options: Any,
) -> LatencyTable:
    """Measure the blocks and some networks; others if those had blocks that cannot run.

    `options` are arguments of `build_table`.
    """
    if before is not None:
        refuse_other_runs(path, before.accepted)  # before blocks are exported, which takes long

    def measured(workloads: Sequence[Workload], table: LatencyTable | None) -> LatencyTable:
        return build_table(
            path,
            workloads=workloads,
            anchors=files.anchors(table) if table else (),
            **options,
            on_progress=lambda done, total: report(
                Event("profile", "rounds measured", done, total)
            ),
        )

    try:
        blocks = [Workload(key, onnx_path) for key, onnx_path in files.blocks().items()]
        chosen = networks_to_measure(files.space, before, networks)
        table = measured(blocks + files.networks(chosen, "network"), before)
        instead = _unknown_networks(files.space, table, networks)
        return measured(files.networks(instead, "network"), table) if instead else table
    except KeyboardInterrupt:
        raise Interrupted(f"profiling stopped; what was measured is in {path}") from None


def _unknown_networks(space: SearchSpace, table: LatencyTable, count: int) -> list[Architecture]:
    """Networks that are to be in a table and were not tried yet."""
    tried = {*table.keys("network"), *table.errors}
    chosen = networks_to_measure(space, table, count)
    return [network for network in chosen if network_key("network", space, network) not in tried]


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


def winner_key(architecture: Architecture, output: str, session: int) -> str:
    """The key under which an exported network is measured, from a session of measuring on."""
    return f"winner/{output}/{architecture}/{session}"


def _missing(
    space: SearchSpace,
    table: LatencyTable,
    networks: int,
    measure: MeasureConfig,
    retry_errors: bool,
) -> list[str]:
    """Keys that lack rounds, those with an error only if they are to be tried again.

    Where time or rounds were used up, those that were made are enough: the correction that follows
    a measuring tells for how many rounds it was done. A measuring after it was stopped.
    """
    done = correction_notes(table).get(space.space_hash)
    until = done.last_session if done and done.rounds >= measure.rounds else 0

    def is_lacking(key: str) -> bool:
        history = table.history(key)
        sessions = [session for session, _ in table.samples_ms(key)] if history.attempts else []
        if max(sessions, default=0) <= until:
            return history.attempts < measure.minimum_rounds
        return measure.lacks_rounds(history)

    wanted = block_keys(space)
    chosen = networks_to_measure(space, table, networks)
    wanted += [network_key("network", space, architecture) for architecture in chosen]
    errors = table.errors
    return [key for key in wanted if (retry_errors if key in errors else is_lacking(key))]
