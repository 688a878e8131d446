"""What all stages of a run share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from devices import DeviceSpec
from devices.errors import FileError
from devices.files import write_bytes
from devices.locks import locked
from devices.processors import read_processors
from edgesearch.config import Config, config_text
from edgesearch.errors import DataError, StageError, UserNotice
from edgesearch.events import Event, Report, silent, teller
from edgesearch.inputs import digest_of
from edgesearch.run.files import RunFiles
from edgesearch.settings import CALIBRATION, SCORE
from edgesearch.space import SearchSpace

if TYPE_CHECKING:
    from edgesearch.data.contents import Contents
    from edgesearch.data.image_pool import ImagePool
    from edgesearch.space.public_weights import Normalisation
    from edgesearch.supernet.weights import SupernetWeights
    from edgesearch.tasks.head_costs import TaskHead

WEIGHTS = "the supernet's weights"
IMAGES = "the set of images"
"""Names of stage inputs in records and messages."""
MARKED = {"score": SCORE, "calibration": CALIBRATION}
"""Parts of the section `search` that other results depend on."""


class RunContext:
    """Configuration, file locations and progress reports of a run."""

    def __init__(self, config: Config, report: Report = silent) -> None:
        self.config = config
        self.report = report
        self.files = RunFiles(config.output_dir)
        self._pool: ImagePool | None = None
        self._told: set[str] = set()
        self._refusal: FileError | None = None
        self._pools: dict[bool, ImagePool] = {}
        self._keeps_pools = False

    @cached_property
    def space(self) -> SearchSpace:
        """The search space of the run; its notices are given as `UserNotice`."""
        space = self.config.space.build()
        for notice in space.notices():
            warnings.warn(notice, UserNotice, stacklevel=2)
        return space

    @cached_property
    def device(self) -> DeviceSpec:
        """The device that networks are chosen for."""
        return self.config.device.build()

    @cached_property
    def head(self) -> TaskHead | None:
        """The head that latencies and budgets include; None without `finetune.task`.

        Opens the images, to count their classes, unless `finetune.classes` is given.

        Raises:
            StageError: There are no classes.
        """
        settings = self.config.finetune
        if settings.task is None:
            return None
        from edgesearch.tasks.head_costs import TaskHead

        return TaskHead(settings.task, settings.head, settings.classes or self._classes())

    def _classes(self) -> int:
        task = self.config.finetune.task
        required = f"the number of classes, for latencies with a head (finetune.task {task})"
        remedy = "Set finetune.classes=NUMBER, or finetune.task=null for latencies of backbones."
        try:
            count = len(self.open_images().class_names)
        except DataError as error:
            raise StageError(required, f"no images: {error.found}", remedy) from error
        if not count:
            found = f"images without classes in {self.config.data.root}"
            raise StageError(required, found, remedy)
        return count

    def teller(self, stage: str) -> Callable[[str], None]:
        """A function that reports messages without counts for a stage."""
        return teller(stage, self.report)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the output folder against other writers, if that is possible now.

        Finished results can be read without it; call `require_lock` before anything is written.
        """
        is_new = not self.files.output_dir.exists()
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.files.lock, protects=self.files.output_dir))
                self._refusal = None
            except FileError as error:
                self._refusal = error
            try:
                yield
            finally:
                if is_new and self._refusal is None:
                    self._remove_if_unused()

    def _remove_if_unused(self) -> None:
        """Remove the output folder if nothing came of it, as after a mistake in the input."""
        folder = self.files.output_dir
        with suppress(OSError):
            if [path.name for path in folder.iterdir()] == [self.files.lock.name]:
                self.files.lock.unlink()
                folder.rmdir()

    @property
    def may_write(self) -> bool:
        """Whether nothing prevented `writing` from locking the output folder."""
        return self._refusal is None

    def require_lock(self) -> None:
        """Refuse to go on without the lock.

        Raises:
            FileError: The folder is not writable, or another process writes to it.
        """
        if self._refusal is not None:
            raise self._refusal

    def keep_config(self) -> None:
        """Write the configuration to the output folder, before a stage writes there.

        Raises:
            FileError: It cannot be written.
        """
        content, path = config_text(self.config).encode(), self.files.config
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content)

    def open_images(self, decode_all: bool = False) -> ImagePool:
        """The images of the run; see `ImagePool`. Reports once how they were understood.

        Raises:
            DataError: There are no images.
            StageError: `finetune.classes` is not the number of their classes.
        """
        from edgesearch.data.image_pool import ImagePool
        from edgesearch.processes import distributed

        if decode_all in self._pools:
            return self._pools[decode_all]
        channels, resolution = self.space.in_channels, self.space.largest.resolution
        data, seed = self.config.data, self.config.seed
        self._pool = pool = ImagePool(
            data, channels, seed, decode_all, self.files.is_output, self._normalisation()
        )
        self._check_classes(pool)
        if self._keeps_pools:
            self._pools[decode_all] = pool
        found = pool.contents
        for text in (str(found), *found.misfits(channels, resolution)):
            if text not in self._told and distributed.rank() == 0:
                self.report(Event("images", text))
            self._told.add(text)
        return pool

    def _check_classes(self, pool: ImagePool) -> None:
        settings = self.config.finetune
        known = settings.task is not None and settings.classes is not None and pool.class_names
        if known and settings.classes != len(pool.class_names):
            raise StageError(
                f"finetune.classes {len(pool.class_names)}, as the images have",
                str(settings.classes),
                "Set finetune.classes=null, or correct data.classes.",
            )

    @property
    def contents(self) -> Contents | None:
        """The images that were opened last, as they were understood; None before."""
        return None if self._pool is None else self._pool.contents

    @contextmanager
    def one_pool(self) -> Iterator[None]:
        """Open and decode the images only once within the context; changed files go unnoticed."""
        outer, self._keeps_pools = self._keeps_pools, True
        try:
            yield
        finally:
            self._keeps_pools = outer
            if not outer:
                self._pools.clear()

    def _normalisation(self) -> Normalisation | None:
        """The normalisation that the weights of `pretrain.init` expect.

        It is that of the trained supernet once `pretrain.init` is gone.
        """
        init = self.config.pretrain.init
        if init is None:
            return None
        from edgesearch.pretrain.make_trainer import weights_file
        from edgesearch.supernet.public_weights import normalisation_of

        grey = self.config.pretrain.init_grey
        return normalisation_of(weights_file(init), grey) or normalisation_of(self.files.weights)

    def load_weights(self) -> SupernetWeights:
        """The trained supernet.

        Raises:
            CheckpointError: It is missing, damaged, or of another space.
        """
        from edgesearch.supernet.weights import SupernetWeights

        weights = SupernetWeights.load(self.files.weights, self.space)
        if weights.origin is not None:
            licence = self.config.pretrain.init_licence or weights.origin.licence
            weights = replace(weights, origin=replace(weights.origin, licence=licence))
        return weights

    def weights_digest(self) -> str:
        """SHA-256 of the trained supernet.

        Raises:
            StageError: It is missing.
        """
        return digest_of(self.files.weights, "pretrain")

    def set_threads(self, section: str = "pretrain") -> None:
        """Set torch's number of threads as a section of the configuration says."""
        import torch

        wanted, found = getattr(self.config, section).threads, read_processors()
        if wanted and wanted > max(1, found.usable):
            self.teller(section)(
                f"warning: {section}.threads is {wanted}, but this process may use {found}: more "
                "threads than processors are slower"
            )
        torch.set_num_threads(wanted or torch.get_num_threads())

    def decisive(self, *sections: str) -> dict[str, Any]:
        """Options that a result depends on, by key path.

        Space, seed and section `data` are always included. "score" and "calibration" select the
        options of `search` that affect scores, and features of recalibrated subnets; "device" means
        its latencies, which with a task are those of whole models.
        """
        found: dict[str, Any] = {"space": self.space.to_dict(), "seed": self.config.seed}
        for section in ("data", *sections):
            if section in MARKED:
                found |= self.config.search.decisive("search", MARKED[section])
                teacher = self.config.pretrain.teacher
                if section == "score" and self.config.search.foreign_reference == "teacher":
                    found |= {} if teacher is None else teacher.decisive("pretrain.teacher")
            elif section == "device":
                found[section] = self.device.measured_fields
                if self.head is not None:
                    found["latency_of"] = str(self.head)
            else:
                found |= getattr(self.config, section).decisive(section)
        return found
