"""kit.zip: a winner with a program that runs it on the device."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import devices
from devices.files import replacing
from devices.spec import DeviceSpec
from edgesearch.export.manifest import MANIFEST

KIT = "kit.zip"
LABELS = "labels.txt"
PROGRAMS = {"run.py": "kit_launcher.py", "program.py": "kit_program.py"}
"""Names of the kit's programs in it and here."""
LEAST = {"python": "3.8", "numpy": "1.21", "Pillow": "9.0"}
"""The oldest versions that run the kit beside the runtime; tried with `pytest -m slow`."""
_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: controls, surrogates, line and paragraph separators."""


def least_versions(device: DeviceSpec) -> dict[str, str]:
    """The oldest versions of Python, packages and runtime that run a winner's kit."""
    return {**LEAST, device.runtime: device.runtime_record.least_version}


def label_lines(names: Sequence[str]) -> str:
    r"""Names of classes, one a line: what would break a line or a console is escaped as in Python.

    A backslash becomes two, a line break "\n".
    """
    return "".join("".join(map(_escaped, name)) + "\n" for name in names)


def _escaped(character: str) -> str:
    if character == "\\" or unicodedata.category(character) in _ESCAPED:
        return character.encode("unicode_escape").decode("ascii")
    return character


def write_kit(folder: Path, engine: str, manifest: Mapping[str, Any]) -> None:
    """Write kit.zip: engine, manifest, labels, its programs and the package `devices`.

    The same files give the same bytes.

    Raises:
        FileError: The file cannot be written.
    """
    path = folder / KIT
    root = Path(devices.__file__).parent
    texts = {
        MANIFEST: json.dumps(manifest, indent=2) + "\n",
        LABELS: label_lines(manifest["classes"]),
    }
    sources = {name: Path(__file__).with_name(here) for name, here in PROGRAMS.items()}
    for source in sorted(root.rglob("*.py")):
        sources[source.relative_to(root.parent).as_posix()] = source
    for name, source in sources.items():
        texts[name] = source.read_text(encoding="utf-8")
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text.encode(), zipfile.ZIP_DEFLATED)
        content = (folder / engine).read_bytes()
        archive.writestr(zipfile.ZipInfo(engine), content, zipfile.ZIP_DEFLATED)
