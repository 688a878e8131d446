"""What all stages of a run share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from devices import DeviceSpec
from devices.locks import locked
from edgesearch.config import Config
from edgesearch.errors import UserNotice
from edgesearch.events import Report, silent, teller
from edgesearch.inputs import digest_of
from edgesearch.run.files import RunFiles
from edgesearch.settings import CALIBRATION, SCORE
from edgesearch.space import SearchSpace
from edgesearch.supernet.memory import require_memory

if TYPE_CHECKING:
    from edgesearch.data.image_pool import ImagePool, Normalisation
    from edgesearch.supernet.weights import SupernetWeights

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

    @cached_property
    def space(self) -> SearchSpace:
        """The search space of the run; its notices are given as `UserNotice`.

        Raises:
            SpaceError: Its largest network does not fit in the memory of this machine.
        """
        space = self.config.space.build()
        require_memory(space, copies=1)
        for notice in space.notices():
            warnings.warn(notice, UserNotice, stacklevel=2)
        return space

    @cached_property
    def device(self) -> DeviceSpec:
        """The device that networks are chosen for."""
        return self.config.device.build()

    def teller(self, stage: str) -> Callable[[str], None]:
        """A function that reports messages without counts for a stage."""
        return teller(stage, self.report)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the output folder against other writers.

        Raises:
            FileError: The folder is not writable, or another process writes to it.
        """
        folder = self.files.output_dir
        with locked(folder / ".lock", protects=folder):
            yield

    def open_images(self, decode_all: bool = False) -> ImagePool:
        """The images of the run; see `ImagePool`.

        Raises:
            DataError: There are no images.
        """
        from edgesearch.data.image_pool import ImagePool

        return ImagePool(
            self.config.data,
            self.space.in_channels,
            self.config.seed,
            decode_all,
            self._normalisation(),
        )

    def _normalisation(self) -> Normalisation | None:
        """The normalisation that the weights of `pretrain.init` expect.

        It is that of the trained supernet once `pretrain.init` is gone.
        """
        init = self.config.pretrain.init
        if init is None:
            return None
        from edgesearch.pretrain.make_trainer import weights_file
        from edgesearch.supernet.public_weights import normalisation_of

        return normalisation_of(weights_file(init)) or normalisation_of(self.files.weights)

    def load_weights(self) -> SupernetWeights:
        """The trained supernet.

        Raises:
            CheckpointError: It is missing, damaged, or of another space.
        """
        from edgesearch.supernet.weights import SupernetWeights

        return SupernetWeights.load(self.files.weights, self.space)

    def weights_digest(self) -> str:
        """SHA-256 of the trained supernet.

        Raises:
            StageError: It is missing.
        """
        return digest_of(self.files.weights, "pretrain")

    def set_threads(self) -> None:
        """Set torch's number of threads as configured."""
        import torch

        torch.set_num_threads(self.config.pretrain.threads or torch.get_num_threads())

    def decisive(self, *sections: str) -> dict[str, Any]:
        """Options that a result depends on, by key path.

        Space, seed and section `data` are always included. "score" and "calibration" select the
        options of `search` that affect scores, and features of recalibrated subnets.
        """
        found: dict[str, Any] = {"space": self.space.to_dict(), "seed": self.config.seed}
        for section in ("data", *sections):
            if section in MARKED:
                found |= self.config.search.decisive("search", MARKED[section])
            elif section == "device":
                found[section] = self.device.measured_fields
            else:
                found |= getattr(self.config, section).decisive(section)
        return found
