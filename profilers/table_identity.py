"""What a latency table was measured on, and how that differs from what is expected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import DeviceError, in_short
from devices.fingerprint import Fingerprint
from devices.spec import IDENTITY_FIELDS, MEASURED_FIELDS, DeviceSpec
from devices.values import in_yaml
from profilers.errors import TableError, TableMismatchError

_RUN_FIELDS = ("runtime", "provider", "precision", "batch", "threads")
"""Fields in which a table holds one value. Machines may differ: each session has a fingerprint."""


@dataclass(frozen=True)
class Mismatch:
    """A field, of `MEASURED_FIELDS` or `IDENTITY_FIELDS`, with another value than wanted."""

    field: str
    wanted: Any
    found: Any


def read_identity(path: Path, header: Mapping[str, Any]) -> tuple[DeviceSpec, Fingerprint]:
    """The device and fingerprint in a table's header.

    Raises:
        TableError: If the header lacks them.
    """
    try:
        return (
            DeviceSpec.from_dict(header["device"]),
            Fingerprint.from_dict(header["fingerprint"]),
        )
    except (KeyError, TypeError, DeviceError) as error:
        raise TableError(
            f"a device and a fingerprint in line 1 of {path}",
            in_short(error),
            "Move it away, and run `edgesearch profile` to measure again.",
        ) from error


def spec_mismatches(found: DeviceSpec, wanted: DeviceSpec) -> list[Mismatch]:
    """Mismatches of two devices in `MEASURED_FIELDS`."""
    compared = [Mismatch(f, getattr(wanted, f), getattr(found, f)) for f in MEASURED_FIELDS]
    return [each for each in compared if each.wanted != each.found]


def machine_mismatches(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Mismatch]:
    """Mismatches of two fingerprints, by field name, in `IDENTITY_FIELDS`.

    A field that is None, empty or missing is unknown, and differs from nothing.
    """
    compared = [
        Mismatch(field, _plain(wanted.get(field)), _plain(found.get(field)))
        for field in IDENTITY_FIELDS
    ]
    unknown = (None, "", ())
    return [
        each
        for each in compared
        if each.wanted not in unknown and each.found not in unknown and each.wanted != each.found
    ]


def check_identity(
    path: Path,
    specs: tuple[DeviceSpec, DeviceSpec | None],
    fingerprints: tuple[Fingerprint, Fingerprint | None],
    *,
    accept: Collection[str] = (),
) -> tuple[Mismatch, ...]:
    """Compare a table's device and machine (first of each pair) with the expected ones, if any.

    Returns:
        The mismatches, all in fields to `accept`.

    Raises:
        TableMismatchError: If they differ in another field; names it.
    """
    differing = []
    if specs[1] is not None:
        differing += spec_mismatches(specs[0], specs[1])
    if fingerprints[1] is not None:
        found, wanted = (vars(fingerprint) for fingerprint in fingerprints)
        differing += machine_mismatches(found, wanted)
    refused = [mismatch for mismatch in differing if mismatch.field not in accept]
    if refused:
        fields = ", ".join(sorted({*accept, *(mismatch.field for mismatch in refused)}))
        raise TableMismatchError(
            f"a latency table of {refused[0].field} {in_yaml(refused[0].wanted)} at {path}",
            f"{refused[0].field} {in_yaml(refused[0].found)}",
            "Use the table of this device, measure anew (`edgesearch profile CONFIG --again` keeps "
            "this one aside), or accept the "
            f"difference: profile.accept=[{fields}].",
        )
    return tuple(differing)


def refuse_other_runs(path: Path, accepted: Iterable[Mismatch]) -> None:
    """Refuse to extend a table whose accepted mismatches include fields of a run.

    Raises:
        TableMismatchError: If they do; names the field.
    """
    for mismatch in accepted:
        if mismatch.field in _RUN_FIELDS:
            raise TableMismatchError(
                f"a latency table of {mismatch.field} {in_yaml(mismatch.wanted)} at {path}, to be "
                "added to",
                f"{mismatch.field} {in_yaml(mismatch.found)}, which was accepted for reading it",
                "Move this table away, and run `edgesearch profile` for one of this device.",
            )


def _plain(value: Any) -> Any:
    """The value, with a list from JSON as a tuple."""
    return tuple(value) if isinstance(value, list) else value
