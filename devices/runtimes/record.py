"""What is known of a runtime without opening it."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from devices.errors import RuntimeMissingError
from devices.runtimes.protocol import Runtime


class RuntimeRecord(ABC):
    """What a runtime can do; listed in `known_runtimes`. Making one imports no runtime.

    A runtime overrides what differs from these defaults. Types are the ONNX file's: a runtime takes
    every precision but those that it gives a reason against, and says so of a file that it cannot
    load.

    Attributes:
        name: What a device calls it.
        endings: Endings of the files that it loads.
        packages: Python packages that bring it; one of them is enough.
        install: How to install it.
        providers: Execution providers that a device may name.
        compiles: It builds an engine for one size of batch: no file may leave the batch open.
        carried: Ending of the files that go to devices: that of compiled files if they run on all
            devices of the kind.
    """

    name: str
    endings: tuple[str, ...]
    packages: tuple[str, ...]
    install: str
    providers: tuple[str, ...] = ()
    compiles: bool = False
    carried: str = ".onnx"

    @abstractmethod
    def open(self, threads: int, batch: int, provider: str | None) -> Runtime:
        """Open it on this machine.

        Args:
            threads: Threads that one run may use.
            batch: Images in a run of a file whose batch is open.
            provider: One of `providers`, or None.

        Raises:
            RuntimeMissingError: If it is not installed.
            DeviceError: If the GPU that it needs is not there.
        """

    @abstractmethod
    def installed_version(self) -> str:
        """Its version, as `Runtime.version`, without reaching for a GPU.

        Raises:
            RuntimeMissingError: If it is not installed.
        """

    def detect(self) -> tuple[str, tuple[str, ...]]:
        """Its version, if possible without importing it, and the execution providers it has here.

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
        """The number format in which networks of a precision run best.

        Args:
            precision: Name of the precision.
            provider: One of `providers`, or None.
            machine: Architecture of the device, such as "x86_64".
            instruction_sets: Those of its processor.

        Returns:
            The precision's name if it has one format only, else the name of one of its formats.
        """
        return precision

    def reason_against(self, precision: str, provider: str | None) -> str | None:
        """Why networks should not run in a precision; None if they may."""
        return None

    def loads(self, path: Path) -> bool:
        """Whether a file is one for this runtime.

        Raises:
            EngineError: If it is, but damaged.
        """
        return path.suffix in self.endings

    def computes_on(self, provider: str | None) -> Literal["processor", "nvidia", "other"]:
        """What runs the networks: the processor, an NVIDIA GPU, or something else."""
        return "processor"
