"""kit.zip: a winner with a program that runs it on the device."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import devices
from devices.files import replacing
from edgesearch.export.manifest import MANIFEST

KIT = "kit.zip"
LABELS = "labels.txt"
PROGRAM = "run.py"


def write_kit(folder: Path, engine: str, manifest: Mapping[str, Any]) -> None:
    """Write kit.zip: engine, manifest, labels, run.py and its dependency, the package `devices`.

    The same files give the same bytes.

    Raises:
        FileError: The file cannot be written.
    """
    path = folder / KIT
    root = Path(devices.__file__).parent
    texts = {
        MANIFEST: json.dumps(manifest, indent=2) + "\n",
        LABELS: "".join(f"{name}\n" for name in manifest["classes"]),
        PROGRAM: Path(__file__).with_name("kit_program.py").read_text(encoding="utf-8"),
    }
    for source in sorted(root.rglob("*.py")):
        name = source.relative_to(root.parent).as_posix()
        texts[name] = source.read_text(encoding="utf-8")
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
        content = (folder / engine).read_bytes()
        archive.writestr(zipfile.ZipInfo(engine), content, zipfile.ZIP_DEFLATED)
