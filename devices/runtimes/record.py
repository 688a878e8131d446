"""What a runtime can do, known without opening it."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from devices.errors import RuntimeMissingError
from devices.runtimes.protocol import Runtime


class RuntimeRecord(ABC):
    """What a runtime can do; listed in `known_runtimes`. Creating one imports no runtime.

    Subclasses override the defaults that differ. Types are those of the ONNX file: a runtime
    accepts every precision without a `reason_against`, and reports a file that it cannot load.

    Attributes:
        name: Name in device descriptions.
        endings: Suffixes of the files that it loads.
        packages: Python packages that provide it; one of them suffices.
        install: How to install it.
        least_version: The first version that runs what edgesearch exports.
        providers: Execution providers that a device may name.
        compiles: It builds engines for one batch size: files must not leave the batch open.
        carried: Suffix of the files shipped to devices: that of engines if they run on all
            devices of the kind.
    """

    name: str
    endings: tuple[str, ...]
    packages: tuple[str, ...]
    install: str
    least_version: str
    providers: tuple[str, ...] = ()
    compiles: bool = False
    carried: str = ".onnx"

    @abstractmethod
    def open(self, threads: int, batch: int, provider: str | None) -> Runtime:
        """Open it on this machine.

        Args:
            threads: Threads of one run.
            batch: Batch of files whose batch dimension is open.
            provider: One of `providers`, or None.

        Raises:
            RuntimeMissingError: If it is not installed.
            DeviceError: If its GPU is missing.
        """

    @abstractmethod
    def installed_version(self) -> str:
        """The same as `Runtime.version`, without accessing a GPU.

        Raises:
            RuntimeMissingError: If it is not installed.
        """

    def detect(self) -> tuple[str, tuple[str, ...]]:
        """Its version, without importing it if possible, and its execution providers here.

        Raises:
            RuntimeMissingError: If it is not installed.
        """
        for package in self.packages:
            try:
                return importlib.metadata.version(package), ()
            except importlib.metadata.PackageNotFoundError:
                continue
        raise RuntimeMissingError(f"the runtime {self.name}", "not installed", self.install)

    def number_format(
        self,
        precision: str,
        provider: str | None = None,
        machine: str = "",
        instruction_sets: Collection[str] = (),
    ) -> str:
        """Number format in which networks of a precision run fastest.

        Args:
            precision: Name of the precision.
            provider: One of `providers`, or None.
            machine: Architecture of the device, such as "x86_64".
            instruction_sets: Those of its CPU.

        Returns:
            One of the precision's formats; the precision's name if it has only one.
        """
        return precision

    def reason_against(self, precision: str, provider: str | None) -> str | None:
        """Why networks should not run in a precision; None if they may."""
        return None

    def suppresses_boxes(self, provider: str | None) -> bool:
        """Whether graphs may hold a detector's NonMaxSuppression; else programs do it.

        How much it computes depends on the image.
        """
        return False

    def loads(self, path: Path) -> bool:
        """Whether a file is for this runtime.

        Raises:
            EngineError: If it is, but damaged.
        """
        return path.suffix in self.endings

    def computes_on(self, provider: str | None) -> Literal["processor", "nvidia", "other"]:
        """What runs the networks: the CPU, an NVIDIA GPU, or something else."""
        return "processor"
