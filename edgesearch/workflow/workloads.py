"""What is measured of a space: its blocks and some whole networks, as ONNX files."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from devices import DeviceSpec
from edgesearch.errors import SpaceError
from edgesearch.export import assemble_network, export_blocks
from edgesearch.space import Architecture, SearchSpace
from edgesearch.workflow.events import Event, Report
from edgesearch.workflow.layout import Layout
from profilers import LatencyTable, Workload

CANDIDATES = 256
"""Architectures that are drawn to choose those from that span a space."""
ANCHORS = 4
"""Networks of a table that are measured again beside later ones, to compare the sessions."""


def block_keys(space: SearchSpace) -> list[str]:
    """The keys of all blocks that the space can need."""
    return [b.key for size in space.resolutions for b in space.distinct_blocks(size)]


def network_key(kind: str, space: SearchSpace, architecture: Architecture) -> str:
    """The key under which a whole network is measured: tables may serve several spaces."""
    return f"{kind}/{space.space_hash[:8]}/{architecture}"


def correction_networks(space: SearchSpace, count: int) -> list[Architecture]:
    """Architectures that span a space: the largest, the smallest, and others between by MACs."""
    rng = random.Random(space.space_hash)
    between = sorted(
        {space.sample(rng) for _ in range(CANDIDATES)} - {space.largest, space.smallest},
        key=lambda architecture: (space.macs(architecture), str(architecture)),
    )
    inner = min(count - 2, len(between))
    chosen = [between[round((i + 0.5) * len(between) / inner - 0.5)] for i in range(inner)]
    return [space.smallest, *chosen, space.largest]


def held_out_networks(
    space: SearchSpace, count: int, seed: int, fitted: Collection[Architecture]
) -> list[Architecture]:
    """Architectures to judge predictions by, drawn uniformly.

    Args:
        space: The search space.
        count: How many.
        seed: The same one gives the same architectures, except for those among `fitted`.
        fitted: What predictions have been fitted to; none of it is drawn.

    Raises:
        SpaceError: The space has no such number of others.
    """
    others = space.size - len(set(fitted))
    if count > others:
        raise SpaceError(
            f"at most {others} networks to validate with, for those not fitted to in {space.name}",
            f"validation.networks {count}",
            "Set a smaller validation.networks.",
        )
    rng = random.Random(f"held out/{seed}")
    drawn: dict[Architecture, None] = {}
    while len(drawn) < count:
        architecture = space.sample(rng)
        if architecture not in fitted:
            drawn[architecture] = None
    return list(drawn)


def anchors(
    space: SearchSpace, device: DeviceSpec, layout: Layout, table: LatencyTable
) -> list[Workload]:
    """Networks of a table, from fast to slow, whose files are there."""
    folder = _folder(space, device, layout)
    found = []
    for network in sorted(table.networks(space.space_hash), key=lambda n: n.median_ms):
        path = folder / f"{Architecture.from_dict(network.architecture)}.onnx"
        if network.key.startswith("network/") and path.exists():
            found.append(Workload(network.key, path, "network"))
    step = max(1, len(found) / ANCHORS)
    return [found[int((index + 0.5) * step)] for index in range(min(ANCHORS, len(found)))]


def _folder(space: SearchSpace, device: DeviceSpec, layout: Layout) -> Path:
    return layout.blocks / f"{space.space_hash}-batch{device.batch}"


def block_files(
    space: SearchSpace, device: DeviceSpec, layout: Layout, report: Report
) -> dict[str, Path]:
    """The ONNX file of each block by its key; those that are not there yet are exported."""
    folder = _folder(space, device, layout)
    files: dict[str, Path] = {}
    for resolution in space.resolutions:
        here = {
            block.key: folder / f"{block.key.replace('/', '_')}.onnx"
            for block in space.distinct_blocks(resolution)
        }
        _export_absent(space, resolution, here, device.batch, report)
        files.update(here)
    return files


def network_workloads(
    space: SearchSpace,
    architectures: Sequence[Architecture],
    files: Mapping[str, Path],
    kind: str,
) -> list[Workload]:
    """Whole networks, joined from the files of their blocks.

    Args:
        space: The search space.
        architectures: The networks.
        files: What `block_files` gave.
        kind: `network` or `validation`; see `Workload`.
    """
    workloads = []
    for architecture in architectures:
        blocks = space.blocks(architecture)
        path = files[blocks[0].key].with_name(f"{architecture}.onnx")
        if not path.exists():
            assemble_network(blocks, files, path)
        workloads.append(
            Workload(
                key=network_key(kind, space, architecture),
                onnx_path=path,
                kind=kind,
                architecture=architecture.to_dict(),
                space_hash=space.space_hash,
            )
        )
    return workloads


def _export_absent(
    space: SearchSpace, resolution: int, paths: dict[str, Path], batch: int, report: Report
) -> None:
    absent = {key: path for key, path in paths.items() if not path.exists()}

    def tell(done: int, total: int) -> None:
        message = f"networks with the blocks for {resolution} px exported"
        report(Event("profile", message, done, total))

    if absent:
        export_blocks(space, resolution, absent, batch=batch, on_progress=tell)
