"""What was really there when something was measured: chip, memory, versions, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from devices.errors import DeviceError
from devices.gpu import read_gpu
from devices.machine import read_machine
from devices.runtimes.known_runtimes import RUNTIMES

_TUPLES = ("instruction_sets", "affinity", "frequency_khz")
_TAKE_AGAIN = "Take the fingerprint again with this version."


@dataclass(frozen=True)
class Fingerprint:
    """The machine and the runtime that measurements come from, as they were before them.

    Args:
        chip: Name of the processor or board.
        cores: Logical cores that this process may use.
        instruction_sets: Those that matter to inference, by their names in `/proc/cpuinfo`;
            empty where they cannot be read.
        memory_bytes: Physical memory; 0 where it cannot be read.
        os: Name and release of the operating system.
        machine: Architecture, such as `x86_64`.
        python: Version of Python.
        runtime: Name of the runtime.
        runtime_version: Its version.
        governor: Policy of the clock frequency of the cores that the process may use, several by
            commas; `None` where it cannot be read, as all that follows.
        affinity: Numbers of the logical cores that the process may use; empty if unknown.
        priority: The process's nice value: 0 is normal, lower is before others.
        frequency_khz: Lowest and highest clock frequency that the system may choose, in kHz.
        power_mode: Power mode of a Jetson, such as `15W`.
        temperature_c: Temperature of the hottest thermal zone, in degrees Celsius.
        gpu: Name of the NVIDIA GPU that the runtime computes on; `None`, as what follows of it, if
            the runtime computes on the processor.
        compute_capability: Of the GPU, such as `8.9`.
        gpu_memory_bytes: Memory of the GPU; `None` if it shares the processor's.
        driver: Version of its driver, or of the Jetson's system, which has it within.
        settings: How the runtime is set, by name: plain JSON values.
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
        """Make a fingerprint from what `to_dict` returned.

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
        tuples = {name: tuple(values[name]) for name in _TUPLES if values[name] is not None}
        return cls(**{**values, **tuples})


def take_fingerprint(
    runtime_name: str,
    runtime_version: str,
    settings: Mapping[str, Any] | None = None,
    root: Path = Path("/"),
) -> Fingerprint:
    """Look at this machine.

    Call it before measuring, not meanwhile: it may run programs of the system.

    Args:
        runtime_name: Name of the runtime in use.
        runtime_version: Its version.
        settings: How it is set: plain JSON values by name. A `provider` is onnxruntime's
            execution provider; it decides whether a GPU computes.
        root: The folder that holds `proc`, `sys` and `etc`.

    Returns:
        The fingerprint. What cannot be read is None, empty or zero, never an error.
    """
    settings = dict(settings or {})
    on_nvidia = _computes_on_nvidia(runtime_name, settings.get("provider"))
    return Fingerprint(
        runtime=runtime_name,
        runtime_version=runtime_version,
        settings=settings,
        **read_machine(root),
        **(read_gpu(root) if on_nvidia else {}),
    )


def _computes_on_nvidia(runtime_name: str, provider: str | None) -> bool:
    # A GPU that only waits decides nothing: its next driver must not cost the processor's tables.
    record = RUNTIMES.get(runtime_name)
    return record is not None and record.computes_on(provider) == "nvidia"
