"""Stage profile: measures the latency table of a space on a device."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.files import next_number, numbered
from edgesearch.errors import Interrupted, LatencyError, lack_of_memory
from edgesearch.events import Event
from edgesearch.latency.correction import Correction
from edgesearch.latency.head_latency import HeadFit
from edgesearch.latency.latency_model import LatencyModel, other_heads
from edgesearch.latency.load_table import tell_accepted, tell_speed
from edgesearch.latency.table import (
    NETWORK,
    VALIDATION,
    WHOLE,
    WINNER,
    WITH_HEAD,
    WITH_HEAD_VALIDATION,
    correction_notes,
    current_correction,
    current_head,
    describe,
    keep_correction,
    keep_head,
    measured_networks,
    steadiness_of,
    write_csv,
)
from edgesearch.latency.workloads import WorkloadFiles, block_keys, network_key, networks_to_measure
from edgesearch.run.context import RunContext
from edgesearch.run.room import check_memory
from edgesearch.space import Architecture, SearchSpace
from profilers import (
    LatencyTable,
    Meter,
    Steadiness,
    Workload,
    build_table,
    open_meter,
    refuse_other_runs,
)

_MADE_FROM = (".csv", ".table.csv", ".validation.json", ".validation.png")
"""Endings of the files beside a table that are made from it."""
_MORE_MEMORY = (
    "Stop other programs there, or choose smaller resolutions or widths in the section space or a "
    "smaller device.batch, then run `edgesearch profile` with profile.retry_errors=true."
)


@dataclass(frozen=True)
class ProfileResult:
    """Result of `profile`.

    Attributes:
        failed_networks: Networks and whole models that fail although their blocks run.
        cannot_run: Number of architectures with such a block.
        estimated_from: Sample size that this number is estimated from; None if it is exact.
        skipped: Whether the table was already complete.
        latencies_ms: Lowest and highest predicted median of the space (of a large one: of a
            sample and both ends).
        latency_of: What these are of: "backbone", or "whole model" with its head.
        head_fit: From backbones to whole models; None without a task.
    """

    table_path: Path
    blocks: int
    failed_blocks: tuple[str, ...]
    failed_networks: tuple[str, ...]
    size: int
    cannot_run: int
    estimated_from: int | None
    correction: Correction
    steadiness: Steadiness
    skipped: bool
    description: str
    latencies_ms: tuple[float, float]
    latency_of: str
    head_fit: HeadFit | None = None
    csv_path: Path | None = None


def profile(run: RunContext, *, export_csv: bool = False, again: bool = False) -> ProfileResult:
    """Measure what is missing from `latency/<device>-<identity>.jsonl`; can also write a CSV.

    With a task (`finetune.task`) whole models with its head are measured too, and what the head
    adds is fitted to them. With `again` the present table is set aside as
    `<device>-<identity>.jsonl.<number>` once the device has been reached, and everything is
    measured anew.
    """
    with run.writing():
        space, settings, head = run.space, run.config.profile, run.head
        path = run.files.table(run.device)
        before = None if again else table_of(run)
        complete = is_profiled(run, before)
        if not complete:
            run.require_lock()
            check_memory(run)
        table = _measured(run, path, before, complete)
        correction = current_correction(space, table)
        fit = None if head is None else current_head(space, table, head)
        known = (correction, head, fit) if complete else (None, head, None)
        short = _short_of_memory(space, table)
        try:
            model = LatencyModel.from_table(space, table, *known)
        except LatencyError as error:
            if not short:
                raise
            raise LatencyError(
                f"memory for the blocks and networks that {run.device.name} runs, all loaded at "
                "once",
                f"too little for {len(short)} of them, such as {short[0]}",
                _MORE_MEMORY,
            ) from error
        if short:
            run.teller("profile")(
                f"warning: {len(short)} blocks and networks got too little memory, such as "
                f"{short[0]}; no architecture that needs them is chosen. {_MORE_MEMORY}"
            )
        if correction is None or not complete:
            run.require_lock()
            asked = {"rounds": settings.rounds, "least_ms": settings.least_ms}
            keep_correction(
                space, table, model.correction, **asked, last_session=table.last_session
            )
        if head is not None and model.fit is not None and (fit is None or not complete):
            run.require_lock()
            keep_head(space, table, head, model.fit)
        failed = _failed_networks(run, table)
        if failed:
            _tell_failed(run, table, failed)
        if settings.accept:
            tell_speed(table, "profile", run.report)
        keys, cannot_run = block_keys(space), model.cannot_run()
        return ProfileResult(
            table_path=path,
            blocks=len(keys),
            failed_blocks=tuple(key for key in keys if key in table.errors),
            failed_networks=failed,
            size=space.size,
            cannot_run=cannot_run.number,
            estimated_from=cannot_run.drawn,
            correction=model.correction,
            steadiness=steadiness_of(table),
            skipped=complete,
            description=describe(table),
            latencies_ms=model.range_ms(),
            latency_of=model.about,
            head_fit=model.fit,
            csv_path=_write_csv(space, table, model) if export_csv else None,
        )


def _short_of_memory(space: SearchSpace, table: LatencyTable) -> list[str]:
    """Keys of the space whose errors say that there was no memory."""
    blocks, of_space = {*block_keys(space)}, f"/{space.space_hash[:8]}/"
    return [
        key
        for key, text in table.errors.items()
        if (key in blocks or of_space in key) and lack_of_memory(text)
    ]


def _failed_networks(run: RunContext, table: LatencyTable) -> tuple[str, ...]:
    """Keys of networks and whole models that fail although all their blocks run."""
    wanted = _network_keys(run, table)
    return tuple(
        key for key in wanted if key in table.errors and not lack_of_memory(table.errors[key])
    )


def _tell_failed(run: RunContext, table: LatencyTable, failed: Sequence[str]) -> None:
    """Report networks that fail although their blocks run, and what to do."""
    first, count = failed[0], len(_network_keys(run, table))
    heads = "" if run.head is None else other_heads(run.head)
    run.teller("profile")(
        f"warning: {len(failed)} of {count} whole networks fail on {run.device.name} although "
        f"their blocks run, {first} because of: {table.errors[first]}; latencies are predicted "
        "from the others, and a winner may fail likewise. If the cause has passed, run "
        f"`edgesearch profile` with profile.retry_errors=true; otherwise choose {heads}another "
        "device.runtime or device.precision"
    )


def _network_keys(run: RunContext, table: LatencyTable | None) -> list[str]:
    """Keys of the networks to measure, with a task also of the whole models."""
    space, settings = run.space, run.config.profile
    chosen = networks_to_measure(space, table, settings.networks)
    keys = [network_key(NETWORK, space, architecture) for architecture in chosen]
    if run.head is not None:
        keys += [network_key(WITH_HEAD, space, each, run.head) for each in chosen]
    return keys


def _measured(
    run: RunContext, path: Path, before: LatencyTable | None, complete: bool
) -> LatencyTable:
    """The complete table, checked against the current state of the device."""
    device, accept = run.device, run.config.profile.accept
    if before is not None and complete and device.transport != "local":
        tell_accepted(before, "profile", run.report)
        boards = ", ".join(device.hosts)
        run.teller("profile")(f"the table is complete: {boards} was not contacted")
        return before
    with contextlib.closing(open_meter(device)) as meter:
        if before is None and path.exists():
            kept = _set_aside(path)
            run.teller("profile")(
                f"measuring from the beginning; the former table is kept as {kept}"
            )
        if before is not None:
            found = meter.fingerprints[0]
            before = LatencyTable.load(path, expect=device, expect_fingerprint=found, accept=accept)
            tell_accepted(before, "profile", run.report)
            if complete:
                return before
        if not run.files.config.exists():  # it may be profiling a further device of a search
            run.keep_config()
        with open_workloads(run, meter) as files:
            return _measure(run, path, files, before, meter)


def _set_aside(path: Path) -> Path:
    """Rename a table, and the files made from it, to the next free number."""
    number = next_number(path)
    for ending in (*_MADE_FROM, path.suffix):
        file = path.with_suffix(ending)
        with contextlib.suppress(FileNotFoundError):
            file.rename(numbered(file, number))
    return numbered(path, number)


def open_workloads(run: RunContext, meter: Meter) -> WorkloadFiles:
    """The blocks and networks of the run's space, exported for its device."""
    return WorkloadFiles(
        run.space,
        run.device,
        meter.fingerprints[0],
        run.files.networks,
        run.config.profile.cache_dir,
        run.report,
    )


def _write_csv(space: SearchSpace, table: LatencyTable, model: LatencyModel) -> Path:
    """Write the table as CSV, with predictions for its networks."""
    backbones = LatencyModel(space, model.block_ms, model.correction)
    predicted_ms = {
        network.key: backbones.predict(network.architecture).median_ms
        for network in measured_networks(table, space, NETWORK, VALIDATION, WINNER)
    }
    if model.head is not None:
        kinds = WITH_HEAD, WITH_HEAD_VALIDATION, WHOLE
        for network in measured_networks(table, space, *kinds, head=model.head):
            predicted_ms[network.key] = model.predict(network.architecture).median_ms
    return write_csv(table, {key: ms for key, ms in predicted_ms.items() if math.isfinite(ms)})


def _measure(
    run: RunContext, path: Path, files: WorkloadFiles, before: LatencyTable | None, meter: Meter
) -> LatencyTable:
    """Measure blocks and some networks; replace networks with blocks that cannot run."""
    settings = run.config.profile
    if before is not None:
        refuse_other_runs(path, before.accepted)  # before the slow export of blocks

    def measured(workloads: Sequence[Workload], table: LatencyTable | None) -> LatencyTable:
        def progress(done: int, total: int) -> None:
            run.report(Event("profile", "rounds measured", done, total))

        return build_table(
            path,
            spec=run.device,
            workloads=workloads,
            meter=meter,
            config=settings.measure(run.config.seed),
            anchors=files.anchors(table) if table else (),
            accept=settings.accept,
            retry_errors=settings.retry_errors,
            on_progress=progress,
        )

    try:
        blocks = [Workload(key, onnx_path) for key, onnx_path in files.blocks().items()]
        chosen = networks_to_measure(run.space, before, settings.networks)
        first = blocks + _networks(run, files, chosen, before)
        table = measured(first, before)
        failed = set(table.errors)
        if settings.retry_errors:  # networks of blocks that had failed before are not among these
            failed &= {workload.key for workload in first}
        tried = {*table.keys(NETWORK), *failed}
        instead = [
            network
            for network in networks_to_measure(run.space, table, settings.networks)
            if network_key(NETWORK, run.space, network) not in tried
        ]
        return measured(_networks(run, files, instead, table), table) if instead else table
    except KeyboardInterrupt:
        raise Interrupted(f"profiling stopped; what was measured is in {path}") from None


def _networks(
    run: RunContext,
    files: WorkloadFiles,
    architectures: Sequence[Architecture],
    before: LatencyTable | None,
) -> list[Workload]:
    """The networks to measure; with a task also as whole models, as far as a table lacks them."""
    found = files.networks(architectures, NETWORK)
    if run.head is None:
        return found
    lacking = architectures
    if before is not None:  # exporting a whole model takes seconds
        missing = set(missing_keys(run, before))  # lacks what failed, unless it is to be retried
        lacking = [
            each
            for each in architectures
            if network_key(WITH_HEAD, run.space, each, run.head) in missing
        ]
    return found + files.with_head(lacking, WITH_HEAD, run.head)


def table_of(run: RunContext) -> LatencyTable | None:
    """The device's table; None if there is none yet.

    Raises:
        TableMismatchError: It is of another device.
    """
    path = run.files.table(run.device)
    if not path.exists():
        return None
    return LatencyTable.load(path, expect=run.device, accept=run.config.profile.accept)


def is_profiled(run: RunContext, table: LatencyTable | None) -> bool:
    """Whether nothing is missing from a table."""
    return table is not None and not missing_keys(run, table)


def is_fitted(run: RunContext, table: LatencyTable | None) -> bool:
    """Whether predictions were fitted to a table, as `profile` does in the end."""
    if table is None or current_correction(run.space, table) is None:
        return False
    return run.head is None or current_head(run.space, table, run.head) is not None


def missing_keys(run: RunContext, table: LatencyTable) -> list[str]:
    """Keys that lack rounds; keys with an error only if they are to be retried.

    After `profile` has finished, the minimum of rounds is enough: time or rounds were used up. The
    correction's note tells what was asked for and up to which session it finished.
    """
    space, settings = run.space, run.config.profile
    measure = settings.measure(run.config.seed)
    done = correction_notes(table).get(space.space_hash)
    is_enough = done and done.rounds >= measure.rounds and done.least_ms >= measure.least_ms
    until = done.last_session if done and is_enough else 0

    def is_lacking(key: str) -> bool:
        history = table.history(key)
        sessions = [session for session, _ in table.samples_ms(key)] if history.attempts else []
        if max(sessions, default=0) <= until:
            return history.attempts < measure.minimum_rounds
        return measure.lacks_rounds(history)

    wanted = [*block_keys(space), *_network_keys(run, table)]
    retried, errors = settings.retry_errors, table.errors
    return [key for key in wanted if (retried if key in errors else is_lacking(key))]
