"""manifest.json: the files of a winner, what they were made from and how they were checked."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devices.files import sha256_of, write_json
from edgesearch.errors import ExportError

MANIFEST = "manifest.json"
PACKAGES = (
    "edgesearch",
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "numpy",
    "tensorrt-rtx-cu13-bindings",
)


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that had a part in an export."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def make_manifest(
    folder: Path, files: Mapping[str, dict[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What is said of a winner's folder, as plain JSON types.

    Args:
        folder: The winner's folder, which holds all files.
        files: For each file's name what is known of it; size and hash are added.
        facts: Everything else.
    """
    listed = {
        name: {
            **about,
            "bytes": (folder / name).stat().st_size,
            "sha256": sha256_of(folder / name),
        }
        for name, about in files.items()
    }
    return {"format": 1, **facts, "files": listed, "versions": installed_versions()}


def write_manifest(
    folder: Path, files: Mapping[str, dict[str, Any]], facts: Mapping[str, Any]
) -> None:
    """Write manifest.json into a winner's folder, atomically and after all files it lists.

    Args:
        folder: The winner's folder.
        files: For each file's name what is known of it; size and hash are added.
        facts: Everything else.
    """
    manifest = make_manifest(folder, files, facts)
    write_json(folder / MANIFEST, manifest)


_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a manifest raises that is damaged or of something else."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read manifest.json and check every file that it lists.

    Raises:
        ExportError: The manifest is missing or damaged, or a file is missing or has changed.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        changed = [
            name
            for name, about in manifest["files"].items()
            if not (folder / name).is_file() or sha256_of(folder / name) != about["sha256"]
        ]
    except _DAMAGED as error:
        required, found = f"a whole {MANIFEST} in {folder}", f"{type(error).__name__}: {error}"
        raise ExportError(required, found, "Run `edgesearch export` again.") from error
    if changed:
        raise ExportError(
            f"the files of {folder} as its {MANIFEST} lists them",
            f"missing or changed: {', '.join(changed)}",
            "Run `edgesearch export` again.",
        )
    return manifest


def check_listed(path: Path) -> dict[str, Any] | None:
    """Check a file by the manifest beside it.

    Returns:
        The manifest; None if there is none, or it is of something else and does not name the file.

    Raises:
        ExportError: The manifest is damaged, or the file has changed.
    """
    remedy = "Run `edgesearch export` again, or copy the whole folder."
    try:
        text = path.with_name(MANIFEST).read_bytes()
    except OSError:
        return None
    try:
        manifest: dict[str, Any] = json.loads(text)
        wanted = manifest["files"][path.name]["sha256"]
        found = sha256_of(path)
    except _DAMAGED as error:
        # One that cannot be read at all, beside a file that an export wrote, was its manifest.
        cut_off = isinstance(error, ValueError) and path.name.startswith("subnet.")
        if not cut_off and json.dumps(path.name).encode() not in text:
            return None
        required, said = f"{path} and a whole {MANIFEST} beside it", type(error).__name__
        raise ExportError(required, f"{said}: {error}", remedy) from error
    if found != wanted:
        required = f"{path} with the SHA-256 {wanted} of its {MANIFEST}"
        raise ExportError(required, f"{found}: the file has changed", remedy)
    return manifest


def check_runtime(path: Path, manifest: Mapping[str, Any], runtime: str, version: str) -> None:
    """Refuse a compiled file on another runtime, or version of it, than its manifest says.

    Args:
        path: The file, which the manifest lists. ONNX files are for all versions.
        manifest: As `check_listed` gives it.
        runtime: Name of the runtime that is to load it.
        version: Its version.

    Raises:
        ExportError: The manifest has another one.
    """
    about = manifest["files"][path.name]
    wanted = (about.get("runtime"), about.get("runtime_version"))
    if path.suffix == ".onnx" or None in wanted or wanted == (runtime, version):
        return
    raise ExportError(
        f"{wanted[0]} {wanted[1]}, with which {path} was compiled ({MANIFEST})",
        f"{runtime} {version}",
        "Install that version, or compile the .onnx file beside it again: run the export with "
        "this version, or load the .onnx file.",
    )


def unjudged(files: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Which of a manifest's files were not judged by something, one text for each reason."""
    found: dict[str, list[str]] = {}
    for name, about in files.items():
        if "knn_note" in about:
            found.setdefault(about["knn_note"], []).append(name)
    return tuple(f"{', '.join(names)}: {note}" for note, names in found.items())
