"""Blocks and whole networks of a space as ONNX files to measure."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from devices import DeviceSpec, Fingerprint
from devices.cache_dir import default_cache_dir, writable_cache
from devices.errors import FileError
from edgesearch.events import Event, Report, silent
from edgesearch.formats.fp32 import FP32
from edgesearch.formats.onnx_export import (
    HeadFile,
    assemble_network,
    export_blocks,
    export_head,
)
from edgesearch.formats.onnx_files import is_whole_model
from edgesearch.formats.precisions import precision_with
from edgesearch.latency.table import NETWORK, about_network, measured_networks
from edgesearch.space import Architecture, Block, SearchSpace, covering_networks
from edgesearch.tasks.backbone import Backbone, MapShapes
from edgesearch.tasks.head_costs import HeadCosts, TaskHead
from edgesearch.tasks.known_tasks import TASKS
from edgesearch.tasks.model import HeadAlone, TaskModel, add_head
from edgesearch.training.randomness import seeded
from profilers import LatencyTable, Workload

EXPORT_FORMAT = 3
"""Version of block export and conversion; part of the names of cached files."""
CANDIDATES = 256
"""Sample that networks for the correction are chosen from."""
DRAWS = 16
"""Factor on that sample if some blocks cannot run."""
RIDGE = 1e-3
"""Regularises a fit with fewer networks than coefficients."""
ANCHORS = 4
"""Networks that each session measures again, to compare sessions."""


def block_keys(space: SearchSpace) -> list[str]:
    """The keys of all blocks of the space."""
    return [b.key for size in space.resolutions for b in space.distinct_blocks(size)]


def network_key(
    kind: str, space: SearchSpace, architecture: Architecture, head: TaskHead | None = None
) -> str:
    """The table key of a whole network; contains the space, since tables may serve several."""
    of_head = "" if head is None else f"{head.key}/"
    return f"{kind}/{space.space_hash[:8]}/{of_head}{architecture}"


def networks_to_measure(
    space: SearchSpace, table: LatencyTable | None, count: int
) -> list[Architecture]:
    """The whole networks to measure for the correction.

    If the table already has `count` networks that can run, they are kept. Otherwise networks are
    chosen without blocks that the runtime cannot run.
    """
    if table is None:
        return correction_networks(space, count)
    measured = [each.architecture for each in measured_networks(table, space, NETWORK)]
    measured = [network for network in measured if _can_run(space, network, table.errors)]
    return measured if len(measured) >= count else correction_networks(space, count, table.errors)


def correction_networks(
    space: SearchSpace, count: int, failed: Collection[str] = ()
) -> list[Architecture]:
    """Architectures that span a space: least and most MACs, and others evenly spaced by MACs.

    Among candidates of similar MACs, the one with the most new widths, depths and resolutions is
    chosen; ties go to the candidate whose latency a correction fitted to those chosen so far would
    predict with the highest variance. There are fewer than `count` if the space has fewer without
    `failed` blocks.
    """
    candidates = _candidates(space, failed)
    if len(candidates) <= count:
        return candidates
    rows = _fitted_to(space, candidates)
    chosen, last, inner = [0, len(candidates) - 1], len(candidates) - 2, count - 2
    for i in range(inner):
        held = {c for j in chosen for c in candidates[j].items()}
        similar = range(1 + i * last // inner, 1 + (i + 1) * last // inner)
        new = [candidates[j].items() - held for j in similar]
        # A choice with many values needs a new one in almost every network.
        gains = [sum(len(space.choices[name]) for name, _ in choices) for choices in new]
        variance = np.linalg.inv(rows[chosen].T @ rows[chosen] + RIDGE * np.eye(rows.shape[1]))
        unsure = [float(rows[j] @ variance @ rows[j]) for j in similar]
        chosen.append(max(zip(gains, unsure, similar, strict=True))[2])
    return [candidates[j] for j in sorted(chosen)]


def _fitted_to(space: SearchSpace, architectures: Sequence[Architecture]) -> np.ndarray:
    """(N, 4) features of the correction's fit, with MACs in place of latency."""
    macs = np.array([space.macs(architecture) for architecture in architectures], float)
    counts = np.array([len(space.blocks(architecture)) for architecture in architectures], float)
    params = np.array([space.params(architecture) for architecture in architectures], float)
    rows = np.stack([np.ones(len(macs)), macs, counts, params], axis=1) / macs[:, None]
    scaled: np.ndarray = rows / rows.mean(axis=0)
    return scaled


def _candidates(space: SearchSpace, failed: Collection[str]) -> list[Architecture]:
    """Architectures without failed blocks, sorted by MACs."""
    rng = random.Random(space.space_hash)
    drawn = (space.sample(rng) for _ in range(CANDIDATES * (DRAWS if failed else 1)))
    found = {
        architecture
        for architecture in itertools.chain((space.smallest, space.largest), drawn)
        if _can_run(space, architecture, failed)
    }
    return sorted(found, key=lambda architecture: (space.macs(architecture), str(architecture)))


def _can_run(space: SearchSpace, architecture: Architecture, failed: Collection[str]) -> bool:
    return not failed or all(block.key not in failed for block in space.blocks(architecture))


def held_out_networks(
    space: SearchSpace, count: int, seed: int, fitted: Collection[Architecture]
) -> list[Architecture]:
    """Architectures drawn uniformly, to validate predictions: at most `count`, none of `fitted`.

    There are fewer if the space has fewer others; empty if all are fitted.
    """
    if space.size - len(set(fitted)) <= count:
        return [architecture for architecture in space if architecture not in fitted]
    rng = random.Random(f"held out/{seed}")
    drawn: dict[Architecture, None] = {}
    while len(drawn) < count:
        architecture = space.sample(rng)
        if architecture not in fitted:
            drawn[architecture] = None
    return list(drawn)


def random_model(space: SearchSpace, architecture: Architecture, head: TaskHead) -> TaskModel:
    """The whole model of an architecture with random weights, in evaluation mode."""
    import torch

    dense = TASKS[head.task].head_class(head.head).dense
    with seeded(0):
        network = space.make_network(space.blocks(architecture)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.5)  # sums stay finite, also in fp16
    backbone = Backbone.of(network, architecture.resolution, space.in_channels, dense)
    return add_head(head.task, head.head, backbone, head.classes, 0).eval()


class WorkloadFiles:
    """ONNX files of blocks and networks for a device; a context manager.

    Blocks are cached under names that identify their content, and shared by devices, output folders
    and spaces. Whole networks are assembled from them on request, and removed at the end since they
    are large.

    Args:
        folder: Folder for networks; removed at the end.
        cache_dir: Folder for blocks; `default_cache_dir` if None.

    Attributes:
        exports: Networks that blocks were exported from so far.
    """

    def __init__(
        self,
        space: SearchSpace,
        device: DeviceSpec,
        fingerprint: Fingerprint,
        folder: Path,
        cache_dir: Path | None = None,
        report: Report = silent,
    ) -> None:
        self.number_format = device.number_format(fingerprint.machine, fingerprint.instruction_sets)
        self._precision = precision_with(self.number_format)
        self.space = space
        self._batch = device.batch
        self._folder = folder
        self._cache = writable_cache((cache_dir or default_cache_dir()) / "onnx")
        self._report = report
        self._made: dict[str, Path] = {}
        self._costs: dict[TaskHead, HeadCosts] = {}
        self.exports = 0

    def __enter__(self) -> WorkloadFiles:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def blocks(self) -> dict[str, Path]:
        """The file of each block by key; missing or damaged files are exported.

        Raises:
            ExportError: The exporter failed, or a file cannot be written.
        """
        for resolution in self.space.resolutions:
            self._make(self.space.distinct_blocks(resolution), resolution)
        return self._made

    def blocks_of(self, architecture: Architecture) -> dict[str, Path]:
        """The files of the blocks of an architecture by key; no others are exported.

        Raises:
            ExportError: See `blocks`.
        """
        blocks = {block.key: block for block in self.space.blocks(architecture)}
        self._make(list(blocks.values()), architecture.resolution)
        return {key: self._made[key] for key in blocks}

    def exports_left(self) -> int:
        """Number of networks that `blocks` would export."""
        return sum(
            len(covering_networks(self.space, resolution, self._absent_of(resolution)))
            for resolution in self.space.resolutions
        )

    def _absent_of(self, resolution: int) -> set[str]:
        keys = [block.key for block in self.space.distinct_blocks(resolution)]
        return set(self._absent({key: self._path(key, self.number_format) for key in keys}))

    def _make(self, blocks: Sequence[Block], resolution: int) -> None:
        new = [block for block in blocks if block.key not in self._made]
        if not new:
            return
        try:
            self._made.update(self._files_of(new, resolution))
        except FileError as error:  # which advises another output_dir
            raise FileError(
                f"a folder for exported blocks that can be written: {self._cache}",
                error.found,
                "Correct it or free space there, or set profile.cache_dir=FOLDER.",
            ) from error

    def networks(self, architectures: Sequence[Architecture], kind: str) -> list[Workload]:
        """Whole networks of kind `NETWORK` or `VALIDATION`, assembled from their blocks."""
        return [
            Workload(
                key=network_key(kind, self.space, architecture),
                onnx_path=self._network(architecture),
                kind=kind,
                about=about_network(self.space, architecture),
            )
            for architecture in architectures
        ]

    def with_head(
        self, architectures: Sequence[Architecture], kind: str, head: TaskHead
    ) -> list[Workload]:
        """Whole models with a head, of kind `WITH_HEAD` or `WITH_HEAD_VALIDATION`.

        They have the operations that `export` writes, with random weights: blocks, and a head that
        is exported once for each shape of its maps.

        Raises:
            ExportError: See `blocks`.
        """
        found = []
        for done, architecture in enumerate(architectures, 1):
            found.append(
                Workload(
                    key=network_key(kind, self.space, architecture, head),
                    onnx_path=self._whole_model(architecture, head),
                    kind=kind,
                    about=about_network(self.space, architecture, head),
                )
            )
            message = f"networks with {head} written"
            self._report(Event("profile", message, done, len(architectures)))
        return found

    def _whole_model(self, architecture: Architecture, head: TaskHead) -> Path:
        name = f"{architecture}-{head.key}"
        path = self._folder / f"{name}-{FP32.name}.onnx"
        if not path.exists():
            if head not in self._costs:
                self._costs[head] = HeadCosts(self.space, head)
            costs = self._costs[head]
            blocks, reads = costs.blocks(architecture)
            exported = {block.key: self._path(block.key, FP32.name) for block in blocks}
            self._export_absent(exported, architecture.resolution)
            alone = HeadFile(self._head(head, costs.shapes(architecture)), reads)
            assemble_network(blocks, exported, path, alone)
        if self._precision.convert is None:
            return path
        converted = self._folder / f"{name}.onnx"
        if not converted.exists():
            self._precision.write(path, converted, self.number_format)
        return converted

    def _head(self, head: TaskHead, shapes: MapShapes) -> Path:
        maps = [*zip(shapes.channels, shapes.sizes, strict=True)]
        about = "-".join(f"{channels}x{size}" for channels, size in maps)
        path = self._folder / f"{head.key}-{about}-r{shapes.resolution}.onnx"
        if not path.exists():
            with seeded(0):
                module = TASKS[head.task].head_class(head.head)(shapes, head.classes)
            export_head(
                HeadAlone(module),
                path,
                shapes=[(self._batch, channels, size, size) for channels, size in maps],
                output_names=module.output_names,
            )
        return path

    def anchors(self, table: LatencyTable, count: int = ANCHORS) -> list[Workload]:
        """Networks of a table, from fast to slow, that link a new session to earlier ones.

        Loading a network again shifts its latency by about 1 %; more anchors average this out.
        """
        measured = measured_networks(table, self.space, NETWORK)
        found = [each.architecture for each in sorted(measured, key=lambda each: each.median_ms)]
        step = max(1, len(found) / count)
        chosen = [found[int((index + 0.5) * step)] for index in range(min(count, len(found)))]
        return self.networks(chosen, NETWORK)

    def _network(self, architecture: Architecture) -> Path:
        path = self._folder / f"{architecture}.onnx"
        if not path.exists():
            blocks = self.blocks_of(architecture)
            assemble_network(self.space.blocks(architecture), blocks, path)
        return path

    def _files_of(self, blocks: Sequence[Block], resolution: int) -> dict[str, Path]:
        exported = {block.key: self._path(block.key, FP32.name) for block in blocks}
        if self._precision.convert is None:
            self._export_absent(exported, resolution)
            return exported
        converted = {block.key: self._path(block.key, self.number_format) for block in blocks}
        missing = self._absent(converted)
        absent = [block for block in blocks if block.key in missing]
        self._export_absent({block.key: exported[block.key] for block in absent}, resolution)
        for done, block in enumerate(absent, 1):
            self._precision.write(
                exported[block.key],
                converted[block.key],
                self.number_format,
                is_first=block.is_first,
                is_last=block.is_last,
            )
            message = f"blocks for {resolution} px converted to {self.number_format}"
            self._report(Event("profile", message, done, len(absent)))
        return converted

    def _export_absent(self, paths: Mapping[str, Path], resolution: int) -> None:
        absent = self._absent(paths)

        def tell(done: int, total: int) -> None:
            self.exports += 1
            message = f"networks with the blocks for {resolution} px exported"
            self._report(Event("profile", message, done, total))

        if absent:
            export_blocks(self.space, resolution, absent, batch=self._batch, on_progress=tell)

    def _absent(self, paths: Mapping[str, Path]) -> dict[str, Path]:
        """The files that are missing or damaged."""
        damaged = {
            k: path for k, path in paths.items() if path.exists() and not is_whole_model(path)
        }
        if damaged:
            message = f"{len(damaged)} damaged block files in {self._cache} are exported again"
            self._report(Event("profile", message))
        return {key: path for key, path in paths.items() if key in damaged or not path.exists()}

    def _path(self, key: str, form: str) -> Path:
        """Path of a block's file, named after its key and a digest of all else that affects it."""
        made_with = [EXPORT_FORMAT, form, version("torch")]
        if form != FP32.name:
            made_with.append(version("onnxruntime"))
        text = json.dumps([key, self._batch, *made_with])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._cache / f"{key.replace('/', '_')}-{form}-{digest}.onnx"
