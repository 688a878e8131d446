"""Device descriptions, from the catalog or the user."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from devices.errors import UnknownDeviceError
from devices.runtimes.known_runtimes import RUNTIMES
from devices.runtimes.record import RuntimeRecord
from devices.values import did_you_mean, in_yaml

TRANSPORTS = ("local", "ssh")
MEASURED_FIELDS = ("name", "runtime", "provider", "precision", "batch", "threads")
"""Fields that latencies and engines depend on. The others only say how to reach the device."""
IDENTITY_FIELDS = (
    *("chip", "instruction_sets", "runtime_version"),
    *("gpu", "driver", "power_mode"),
    *("affinity", "processors"),
)
"""Fingerprint fields in which two sessions must agree to share a latency table. Unreadable and
missing ones are None, or empty.
"""

_CATALOG = Path(__file__).parent / "catalog"


@dataclass(frozen=True)
class DeviceSpec:
    """A device and how models run on it.

    Args:
        name: Name of the device; part of file names.
        runtime: A key of `RUNTIMES`.
        provider: Execution provider of onnxruntime, such as `cuda`; None for the CPU and for other
            runtimes.
        precision: Name of a precision; which ones exist is not known here.
        threads: Threads of one run.
        batch: Images per run.
        transport: `local` for this machine, `ssh` for one or several others.
        hosts: Names of the boards for the ssh client; boards of one kind share the work.
        python: Name or path of the Python interpreter on the device.
        ssh_config: Configuration file for the ssh client; the user's own if None.
        machine: Required architecture, such as `aarch64`.
        description: One line for people.

    Raises:
        UnknownDeviceError: If a field has an invalid value.
    """

    name: str
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1
    transport: str = "local"
    hosts: tuple[str, ...] = ()
    python: str = "python3"
    ssh_config: str | None = None
    provider: str | None = None
    machine: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            _refuse("name", "letters, digits, '-', '_' and '.' only", self.name)
        for field in ("python", "precision"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field):
                _refuse(field, "a name", getattr(self, field))
        for field in ("ssh_config", "machine"):
            value = getattr(self, field)
            if value is not None and (not isinstance(value, str) or not value):
                _refuse(field, "a name, or left out", value)
        for field, allowed in (("runtime", tuple(RUNTIMES)), ("transport", TRANSPORTS)):
            if getattr(self, field) not in allowed:
                _refuse(field, "one of " + ", ".join(allowed), getattr(self, field))
        for field in ("threads", "batch"):
            value = getattr(self, field)
            # bool is an int in Python, but `threads: yes` is an error.
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                _refuse(field, "a whole number from 1 on", value)
        if not isinstance(self.description, str):
            _refuse("description", "a text", self.description)
        offered = self.runtime_record.providers
        if self.provider is not None and self.provider not in offered:
            one_of = f"one of {', '.join(offered)}, or left out"
            none = f"left out for the runtime {self.runtime!r}"
            _refuse("provider", one_of if offered else none, self.provider)
        reason = self.runtime_record.reason_against(self.precision, self.provider)
        if reason is not None:
            raise UnknownDeviceError(
                f"another precision than {self.precision!r} for the device {self.name!r}",
                reason,
                "Choose another precision, runtime or provider.",
            )
        # ssh would take a host that begins with a dash as an option.
        valid = isinstance(self.hosts, tuple) and all(
            isinstance(host, str) and re.fullmatch(r"[^-\s][^\s]*", host) for host in self.hosts
        )
        if not valid or len(set(self.hosts)) < len(self.hosts):
            _refuse("hosts", "a list of different host names", self.hosts)
        if self.hosts and self.transport != "ssh":
            _refuse("hosts", f"left out for the transport {self.transport!r}", list(self.hosts))
        if self.transport == "ssh" and not self.hosts:
            raise UnknownDeviceError(
                f"a host for the device {self.name!r}, which is reached over ssh",
                "none",
                "Give its name for the ssh client: device.host=NAME, or device.hosts=[A, B] for "
                "several boards of one kind; on the device itself, device.transport=local.",
            )

    @property
    def runtime_record(self) -> RuntimeRecord:
        """The record of the runtime."""
        return RUNTIMES[self.runtime]

    def number_format(self, machine: str = "", instruction_sets: Collection[str] = ()) -> str:
        """Number format that the runtime runs fastest; see `RuntimeRecord.number_format`."""
        return self.runtime_record.number_format(
            self.precision, self.provider, machine, instruction_sets
        )

    @property
    def identity(self) -> str:
        """8 hex digits over what a latency depends on, except the device's name."""
        parts: list[object] = [self.runtime, self.precision, self.batch, self.threads]
        if self.provider is not None:
            parts.append(self.provider)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    @property
    def measured_fields(self) -> dict[str, Any]:
        """The values of `MEASURED_FIELDS` by name."""
        return {field: getattr(self, field) for field in MEASURED_FIELDS}

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON or YAML."""
        return {**asdict(self), "hosts": list(self.hosts)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DeviceSpec:
        """Make a description from values by field name; missing fields get their defaults.

        Raises:
            UnknownDeviceError: If a field is unknown, missing or has an invalid value.
        """
        known = [field.name for field in fields(cls)]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise UnknownDeviceError(
                f"a device has the fields {', '.join(known)}",
                f"unknown field {unknown[0]!r}",
                f"{did_you_mean(str(unknown[0]), known)} Remove or rename it.".lstrip(),
            )
        if "name" not in values:
            raise UnknownDeviceError(
                "a device needs the field 'name'",
                f"only {', '.join(values) or 'no fields'}",
                "Add the name.",
            )
        hosts = values.get("hosts", ())
        return cls(**{**values, "hosts": tuple(hosts) if isinstance(hosts, list) else hosts})


def known_devices() -> list[str]:
    """Names of the devices in the catalog, sorted."""
    return sorted(path.stem for path in _CATALOG.glob("*.yaml"))


def read_catalog(name: str) -> dict[str, Any]:
    """Read a device of the catalog.

    Returns:
        Fields of a `DeviceSpec` by name, without hosts; and `install`, instructions for people.

    Raises:
        UnknownDeviceError: If the catalog has no such device.
    """
    known = known_devices()
    if name not in known:
        raise UnknownDeviceError(
            f"a device of the catalog: {', '.join(known)}",
            repr(name),
            f"{did_you_mean(name, known)} Choose one of the catalog, or describe your own by "
            "giving its runtime as well.".lstrip(),
        )
    import yaml

    return dict(yaml.safe_load((_CATALOG / f"{name}.yaml").read_text(encoding="utf-8")))


def load_device(name: str, **overrides: Any) -> DeviceSpec:
    """Describe a device of the catalog or, if its runtime is given, any other.

    Args:
        name: Name of the device.
        **overrides: Fields that replace the catalog's; None keeps the catalog's value.

    Raises:
        UnknownDeviceError: If there is no such device, an override is invalid, or the device needs
            a host and none is given.
    """
    chosen = {key: value for key, value in overrides.items() if value is not None}
    if name not in known_devices() and "runtime" in chosen:
        return DeviceSpec.from_dict({"name": name, **chosen})
    values = read_catalog(name)
    del values["install"]
    return DeviceSpec.from_dict({**values, **chosen})


def _refuse(field: str, allowed: str, found: object) -> None:
    raise UnknownDeviceError(
        f"field {field!r} of a device must be {allowed}", in_yaml(found), f"Change {field!r}."
    )
