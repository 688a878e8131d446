"""Stage profile: from a device and a space to a latency table."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devices import DeviceSpec, open_runtime, take_fingerprint
from edgesearch.errors import Interrupted, StageError
from edgesearch.export import assemble_network, export_blocks
from edgesearch.latency import Correction, LatencyModel
from edgesearch.space import Architecture, SearchSpace
from edgesearch.workflow.events import Event, Report, silent
from edgesearch.workflow.layout import Layout
from edgesearch.workflow.output_folder import output_folder
from profilers import LatencyTable, MeasureConfig, Workload, build_table

NETWORK_CANDIDATES = 256


@dataclass(frozen=True)
class ProfileResult:
    """What the stage left behind.

    Attributes:
        table_path: The latency table.
        blocks: Number of blocks of the space in it.
        failed_blocks: Keys of those that the runtime cannot run.
        correction: From sums of blocks to whole networks.
        skipped: Nothing was missing from the table.
    """

    table_path: Path
    blocks: int
    failed_blocks: tuple[str, ...]
    correction: Correction
    skipped: bool


def profile(
    *,
    space: SearchSpace,
    device: DeviceSpec,
    output_dir: Path,
    measure: MeasureConfig,
    networks: int = 8,
    report: Report = silent,
) -> ProfileResult:
    """Measure what is missing from a device's latency table.

    Args:
        space: Its blocks are measured at all its resolutions.
        device: Where they run.
        output_dir: Gets `latency/<device>-<identity>.jsonl`.
        measure: Rounds, runs and bounds of the measuring.
        networks: Whole subnets measured in the same rounds, at least six.
        report: Is told what happens.

    Raises:
        Interrupted: Stopped by the user; the same call goes on.
        UserError: The table is of another device, or something cannot be read or written.
    """
    with output_folder(output_dir):
        layout = Layout(output_dir)
        path = layout.table(device)
        runtime = open_runtime(device)
        fingerprint = take_fingerprint(runtime.name, runtime.version)
        if path.exists():
            table = LatencyTable.load(path, expect=device, expect_fingerprint=fingerprint)
            missing = _missing(space, table, networks, measure)
        else:
            missing = None
        skipped = missing is not None and not missing
        if not skipped:
            try:
                workloads = _workloads(space, device, layout.blocks, networks, report)
                table = build_table(
                    path,
                    spec=device,
                    fingerprint=fingerprint,
                    workloads=workloads,
                    runtime=runtime,
                    config=measure,
                    on_progress=lambda done, total: report(
                        Event("profile", "rounds measured", done, total)
                    ),
                )
            except KeyboardInterrupt:
                raise Interrupted(f"profiling stopped; what was measured is in {path}") from None
        correction = current_correction(space, table)
        if correction is None or not skipped:
            correction = LatencyModel.from_table(space, table).correction
            keep_correction(space, table, correction, rounds=measure.rounds)
        keys = _block_keys(space)
        failed = tuple(key for key in keys if key in table.errors)
        return ProfileResult(path, len(keys), failed, correction, skipped)


def current_correction(space: SearchSpace, table: LatencyTable) -> Correction | None:
    """The last correction that was fitted for a space; None if there is none."""
    values = table.correction(space.space_hash)
    return None if values is None else Correction.from_dict(values)


def keep_correction(
    space: SearchSpace, table: LatencyTable, correction: Correction, **facts: int
) -> None:
    """Append a correction; facts about the measuring are taken over from the one before."""
    before = table.correction(space.space_hash) or {}
    kept = {"rounds": before["rounds"]} if "rounds" in before else {}
    table.append_correction(
        {"space_hash": space.space_hash, **kept, **facts, **correction.to_dict()}
    )


def load_table(path: Path, space: SearchSpace, device: DeviceSpec) -> LatencyTable:
    """The table of a device, checked to be of this device and space.

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
    table = LatencyTable.load(path, expect=device)
    known = set(table.keys()) | set(table.errors)
    lacking = [key for key in _block_keys(space) if key not in known]
    if lacking or current_correction(space, table) is None:
        found = f"{len(lacking)} of its blocks are not in it, the first being {lacking[:1]}"
        raise StageError(
            f"a latency table of the space {space.name!r} at {path}",
            found if lacking else "blocks, but no correction for this space",
            "Run `edgesearch profile` with the same configuration first.",
        )
    return table


def table_digest(path: Path) -> str:
    """Tells whether the blocks and networks of a table have been measured anew.

    What the export of a search's own results appends does not count: corrections, winners, and
    what is measured beside them.
    """
    digest = hashlib.sha256()
    data = path.read_bytes()
    for line in data[: data.rfind(b"\n") + 1].splitlines():  # the last one may be torn
        try:
            values = json.loads(line)
        except ValueError:  # garbage of a torn write, which reading the table drops
            continue
        kind = values.get("type", "block")
        if kind == "block" or (kind == "network" and not is_winner(values["key"])):
            digest.update(line)
    return digest.hexdigest()


def winner_key(architecture: Architecture, output: str, session: int) -> str:
    """The key under which an exported network is measured, from a session of measuring on."""
    return f"winner/{output}/{architecture}/{session}"


def is_winner(key: str) -> bool:
    """Whether a key is that of an exported network."""
    return key.startswith("winner/")


def _block_keys(space: SearchSpace) -> list[str]:
    return [b.key for size in space.resolutions for b in space.distinct_blocks(size)]


def correction_networks(space: SearchSpace, count: int) -> list[Architecture]:
    """Architectures that span a space: the largest, the smallest, and others between by MACs."""
    rng = random.Random(space.space_hash)
    between = sorted(
        {space.sample(rng) for _ in range(NETWORK_CANDIDATES)} - {space.largest, space.smallest},
        key=lambda architecture: (space.macs(architecture), str(architecture)),
    )
    inner = min(count - 2, len(between))
    chosen = [between[round((i + 0.5) * len(between) / inner - 0.5)] for i in range(inner)]
    return [space.smallest, *chosen, space.largest]


def _network_key(architecture: Architecture) -> str:
    return f"network/{architecture}"


def _missing(
    space: SearchSpace, table: LatencyTable, networks: int, measure: MeasureConfig
) -> list[str]:
    """Keys that lack rounds.

    Where the time was over before all rounds were made, those that were made are enough: the
    correction that follows a measuring tells for how many rounds it was done.
    """
    measured_for = (table.correction(space.space_hash) or {}).get("rounds", 0)
    enough = measure.minimum_rounds if measured_for >= measure.rounds else measure.rounds
    wanted = _block_keys(space)
    wanted += [_network_key(a) for a in correction_networks(space, networks)]
    errors = table.errors
    return [key for key in wanted if key not in errors and table.rounds(key) < enough]


def _export_absent(
    space: SearchSpace, resolution: int, paths: dict[str, Path], batch: int, report: Report
) -> None:
    absent = {key: path for key, path in paths.items() if not path.exists()}

    def tell(done: int, total: int) -> None:
        message = f"networks with the blocks for {resolution} px exported"
        report(Event("profile", message, done, total))

    if absent:
        export_blocks(space, resolution, absent, batch=batch, on_progress=tell)


def _workloads(
    space: SearchSpace, device: DeviceSpec, folder: Path, networks: int, report: Report
) -> Sequence[Workload]:
    """Blocks and networks with their ONNX files, which are made unless they are there."""
    folder = folder / f"{space.space_hash}-batch{device.batch}"
    paths: dict[str, Path] = {}
    for resolution in space.resolutions:
        here = {
            block.key: folder / f"{block.key.replace('/', '_')}.onnx"
            for block in space.distinct_blocks(resolution)
        }
        _export_absent(space, resolution, here, device.batch, report)
        paths.update(here)
    workloads = [Workload(key=key, onnx_path=path, kind="block") for key, path in paths.items()]
    for architecture in correction_networks(space, networks):
        path = folder / f"{architecture}.onnx"
        if not path.exists():
            assemble_network(space.blocks(architecture), paths, path)
        workloads.append(
            Workload(
                key=_network_key(architecture),
                onnx_path=path,
                kind="network",
                architecture=architecture.to_dict(),
                space_hash=space.space_hash,
            )
        )
    return workloads
