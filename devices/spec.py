"""What a device is: a frozen description, read from the catalog or made by hand."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from devices.errors import UnknownDeviceError

PRECISIONS = ("fp32", "fp16", "int8")

_CATALOG = Path(__file__).parent / "catalog"


@dataclass(frozen=True)
class DeviceSpec:
    """A device and the way in which models run on it.

    Args:
        name: Name of the device; part of file names.
        runtime: Name of the runtime that runs engines there.
        precision: One of `PRECISIONS`.
        threads: Threads that one run may use.
        batch: Images per run.
        transport: How the device is reached; `local` is this machine.
        description: One line for people.

    Raises:
        UnknownDeviceError: If a field has a value that no device can have.
    """

    name: str
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1
    transport: str = "local"
    description: str = ""

    def __post_init__(self) -> None:
        """Refuse values that no device can have."""
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            _refuse("name", "letters, digits, '-', '_' and '.' only", self.name)
        for field in ("runtime", "transport"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field):
                _refuse(field, "a name", getattr(self, field))
        if self.precision not in PRECISIONS:
            _refuse("precision", "one of " + ", ".join(PRECISIONS), self.precision)
        for field in ("threads", "batch"):
            value = getattr(self, field)
            # True is an int to Python, but not to whoever wrote `threads: yes`.
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                _refuse(field, "a whole number from 1 on", value)
        if not isinstance(self.description, str):
            _refuse("description", "a text", self.description)

    @property
    def identity(self) -> str:
        """8 hex digits over runtime, precision, batch and threads: what a latency depends on."""
        parts = [self.runtime, self.precision, self.batch, self.threads]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON or YAML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DeviceSpec:
        """Make a description from plain values.

        Args:
            values: Values by field name; fields left out have their defaults.

        Raises:
            UnknownDeviceError: If a field is unknown, missing or has an impossible value.
        """
        known = [field.name for field in fields(cls)]
        unknown = [key for key in values if key not in known]
        if unknown:
            raise UnknownDeviceError(
                f"a device has the fields {', '.join(known)}",
                f"unknown field {unknown[0]!r}",
                _nearest(str(unknown[0]), known) + "Remove or rename it.",
            )
        if "name" not in values:
            raise UnknownDeviceError(
                "a device needs the field 'name'",
                f"only {', '.join(values) or 'no fields'}",
                "Add the name.",
            )
        return cls(**values)


def known_devices() -> list[str]:
    """Return the names of the devices in the catalog, sorted."""
    return sorted(path.stem for path in _CATALOG.glob("*.yaml"))


def load_device(name: str, **overrides: Any) -> DeviceSpec:
    """Read a device from the catalog.

    Args:
        name: Name of a device in the catalog.
        **overrides: Fields that replace the catalog's; `None` keeps what the catalog says.

    Returns:
        The description.

    Raises:
        UnknownDeviceError: If there is no such device, or an override is at fault.
    """
    known = known_devices()
    if name not in known:
        raise UnknownDeviceError(
            f"a device of the catalog: {', '.join(known)}",
            repr(name),
            _nearest(name, known) + "Choose one of the catalog.",
        )
    import yaml

    values = yaml.safe_load((_CATALOG / f"{name}.yaml").read_text(encoding="utf-8"))
    chosen = {key: value for key, value in overrides.items() if value is not None}
    return DeviceSpec.from_dict({**values, **chosen})


def _refuse(field: str, allowed: str, found: object) -> None:
    raise UnknownDeviceError(
        f"field {field!r} of a device must be {allowed}", repr(found), f"Change {field!r}."
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {matches[0]!r}? " if matches else ""
