"""What a latency table is of, and what it differs in from what is expected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import DeviceError
from devices.fingerprint import Fingerprint
from devices.spec import IDENTITY_FIELDS, MEASURED_FIELDS, DeviceSpec
from profilers.errors import TableError, TableMismatchError

_RUN_FIELDS = ("runtime", "provider", "precision", "batch", "threads")
"""What a run is. Latencies of different runs have no place in one table; those of machines that
differ a little have, since each session says what was there."""


@dataclass(frozen=True)
class Mismatch:
    """A field in which something differs from what is wanted.

    Attributes:
        field: One of `MEASURED_FIELDS` or `IDENTITY_FIELDS`.
        wanted: The value that is wanted.
        found: The value that was found.
    """

    field: str
    wanted: Any
    found: Any


def read_identity(path: Path, header: Mapping[str, Any]) -> tuple[DeviceSpec, Fingerprint]:
    """Return the device and the machine that a table's header names.

    Raises:
        TableError: If it does not.
    """
    try:
        return (
            DeviceSpec.from_dict(header["device"]),
            Fingerprint.from_dict(header["fingerprint"]),
        )
    except (KeyError, TypeError, DeviceError) as error:
        raise TableError(
            f"{path} must name its device and fingerprint in line 1",
            str(error),
            "Move it away and measure again.",
        ) from error


def spec_mismatches(found: DeviceSpec, wanted: DeviceSpec) -> list[Mismatch]:
    """Return the fields that latencies are of in which two devices differ."""
    compared = [Mismatch(f, getattr(wanted, f), getattr(found, f)) for f in MEASURED_FIELDS]
    return [each for each in compared if each.wanted != each.found]


def machine_mismatches(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[Mismatch]:
    """Return the fields in which two machines would have to agree to share a table, and do not.

    Args:
        found: Fields of a fingerprint, by name. One that is None, an empty text or left out is
            not known, and differs from nothing.
        wanted: The same.
    """
    compared = [
        Mismatch(field, _plain(wanted.get(field)), _plain(found.get(field)))
        for field in IDENTITY_FIELDS
    ]
    return [each for each in compared if _is_known(each) and each.wanted != each.found]


def check_identity(
    path: Path,
    specs: tuple[DeviceSpec, DeviceSpec | None],
    fingerprints: tuple[Fingerprint, Fingerprint | None],
    *,
    accept: Collection[str] = (),
) -> tuple[Mismatch, ...]:
    """Compare what a table is of with what it is expected to be of.

    Args:
        path: The table.
        specs: Its device, and the one that is expected, if any.
        fingerprints: Its machine, and the one that is expected, if any.
        accept: Fields in which they may differ.

    Returns:
        What was accepted.

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
            f"{path} must be of {refused[0].field} {refused[0].wanted!r}",
            f"{refused[0].field} {refused[0].found!r}",
            "Use the table of this device, move this one away and measure again, or take it as it "
            f"is: profile.accept=[{fields}].",
        )
    return tuple(differing)


def refuse_other_runs(path: Path, accepted: Iterable[Mismatch]) -> None:
    """Refuse to add to a table that was accepted although it is of other runs.

    Raises:
        TableMismatchError: If there is such a field; names it.
    """
    for mismatch in accepted:
        if mismatch.field in _RUN_FIELDS:
            raise TableMismatchError(
                f"{path} must be of {mismatch.field} {mismatch.wanted!r} to be added to",
                f"{mismatch.field} {mismatch.found!r}, which was accepted for reading it",
                "Move this table away, and run `edgesearch profile` for one of this device.",
            )


def _is_known(mismatch: Mismatch) -> bool:
    return mismatch.wanted not in (None, "") and mismatch.found not in (None, "")


def _plain(value: Any) -> Any:
    """The value; a list, which JSON makes of a tuple, as a tuple again."""
    return tuple(value) if isinstance(value, list) else value
