"""Fingerprint of the machine and runtime that measurements come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from devices.errors import DeviceError
from devices.gpu import read_gpu
from devices.machine import read_machine
from devices.runtimes.known_runtimes import RUNTIMES

_TAKE_AGAIN = "Take the fingerprint again with this version."


@dataclass(frozen=True)
class Fingerprint:
    """Machine and runtime just before measuring; what cannot be read is None, empty or 0.

    Attributes:
        cores: Logical cores that this process may use.
        instruction_sets: Those relevant to inference, named as in `/proc/cpuinfo`.
        os: Name and release.
        machine: Architecture, such as `x86_64`.
        governor: Frequency governors of the cores that this process may use, comma-separated.
        affinity: Numbers of the logical cores that this process may use.
        processors: Processors' worth of time that this process can get: `cores`, or its CPU quota.
        physical_cores: Physical cores behind the affinity.
        priority: Nice value of this process.
        frequency_khz: Lowest and highest clock frequency that the governor may choose.
        power_mode: Power mode of a Jetson, such as `15W`.
        temperature_c: Temperature of the hottest thermal zone.
        gpu: NVIDIA GPU that the runtime uses. All GPU fields are None if the runtime uses the CPU.
        compute_capability: Of the GPU, such as `8.9`.
        gpu_memory_bytes: None if the GPU shares the CPU's memory.
        driver: Version of the GPU driver, or of a Jetson's L4T release, which contains the driver.
        settings: Settings of the runtime, as plain JSON values.
    """

    chip: str
    cores: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    os: str
    machine: str
    python: str
    runtime: str
    runtime_version: str
    governor: str | None
    affinity: tuple[int, ...] = ()
    processors: float | None = None
    physical_cores: int = 1
    priority: int | None = None
    frequency_khz: tuple[int, int] | None = None
    power_mode: str | None = None
    temperature_c: float | None = None
    gpu: str | None = None
    compute_capability: str | None = None
    gpu_memory_bytes: int | None = None
    driver: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Read the result of `to_dict`.

        Raises:
            DeviceError: If a field is missing or unknown, or the frequency is no pair.
        """
        known = {each.name for each in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != known:
            is_object = isinstance(values, Mapping)
            raise DeviceError(
                f"a fingerprint has the fields {', '.join(sorted(known))}",
                ", ".join(sorted(map(str, values))) if is_object else repr(values),
                _TAKE_AGAIN,
            )
        khz = values["frequency_khz"]
        is_pair = isinstance(khz, (list, tuple)) and [type(each) for each in khz] == [int, int]
        if khz is not None and not is_pair:
            required = "the lowest and the highest frequency as frequency_khz of a fingerprint"
            raise DeviceError(required, repr(khz), _TAKE_AGAIN)
        names = ("instruction_sets", "affinity", "frequency_khz")
        tuples = {name: tuple(values[name]) for name in names if values[name] is not None}
        return cls(**{**values, **tuples})


def take_fingerprint(
    runtime_name: str,
    runtime_version: str,
    settings: Mapping[str, Any] | None = None,
    root: Path = Path("/"),
) -> Fingerprint:
    """Take the fingerprint of this machine. It may run system programs: never call it while timing.

    Args:
        runtime_name: Name of the runtime in use.
        runtime_version: Its version.
        settings: Its settings, as plain JSON values. `provider`, the execution provider of
            onnxruntime, decides whether a GPU is used.
        root: The folder that holds `proc`, `sys` and `etc`.
    """
    settings = dict(settings or {})
    # A GPU that is not used is left out: its driver update must not invalidate the CPU's tables.
    record = RUNTIMES.get(runtime_name)
    on_nvidia = record is not None and record.computes_on(settings.get("provider")) == "nvidia"
    return Fingerprint(
        runtime=runtime_name,
        runtime_version=runtime_version,
        settings=settings,
        **read_machine(root),
        **(read_gpu(root) if on_nvidia else {}),
    )
