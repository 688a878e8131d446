"""manifest.json: the files of a winner, their origin and verification."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
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
    """Versions of Python and of the packages that affect an export."""
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
    """The manifest: `facts`, and per file what is known of it with size and hash."""
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
    """Write manifest.json atomically, after all files it lists; see `make_manifest`."""
    write_json(folder / MANIFEST, make_manifest(folder, files, facts))


_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""Errors from a damaged or foreign manifest."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read manifest.json and verify every file that it lists.

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
        required, found = f"a complete {MANIFEST} in {folder}", f"{type(error).__name__}: {error}"
        raise ExportError(required, found, "Run `edgesearch export` again.") from error
    if changed:
        raise ExportError(
            f"the files of {folder} as its {MANIFEST} lists them",
            f"missing or changed: {', '.join(changed)}",
            "Run `edgesearch export` again.",
        )
    return manifest


def check_listed(path: Path) -> dict[str, Any] | None:
    """Verify a file with the manifest beside it.

    Returns:
        The manifest; None if there is none that names the file.

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
        # A truncated manifest beside a file of an export counts as that export's.
        cut_off = isinstance(error, ValueError) and path.name.startswith("subnet.")
        if not cut_off and json.dumps(path.name).encode() not in text:
            return None
        required, said = f"{path} and a complete {MANIFEST} beside it", type(error).__name__
        raise ExportError(required, f"{said}: {error}", remedy) from error
    if found != wanted:
        required = f"{path} with the SHA-256 {wanted} of its {MANIFEST}"
        raise ExportError(required, f"{found}: the file has changed", remedy)
    return manifest


def check_runtime(path: Path, manifest: Mapping[str, Any], runtime: str, version: str) -> None:
    """Refuse a compiled file on another runtime or version than its manifest names.

    ONNX files are accepted on all versions.

    Raises:
        ExportError: Runtime or version differ.
    """
    about = manifest["files"][path.name]
    wanted = (about.get("runtime"), about.get("runtime_version"))
    if path.suffix == ".onnx" or None in wanted or wanted == (runtime, version):
        return
    raise ExportError(
        f"{wanted[0]} {wanted[1]}, the version that compiled {path} ({MANIFEST})",
        f"{runtime} {version}",
        "Install that version, export again with this one, or load the .onnx file beside it.",
    )


def notes_on(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on files that were left out or not judged, and on post-processing that takes long."""
    found: dict[str, list[str]] = {}
    for name, reason in manifest["left_out"].items():
        found.setdefault(f"left out: {reason}", []).append(name)
    for name, about in manifest["files"].items():
        if "knn_note" in about:
            found.setdefault(about["knn_note"], []).append(name)
    notes = [f"{', '.join(names)}: {note}" for note, names in found.items()]
    return (*notes, *_over_budget(manifest))


def _over_budget(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Where post-processing, which budgets leave out, takes a winner over its budget."""
    time = (manifest.get("post_processing") or {}).get("time")
    figures = manifest["winner"]["latency_ms"].get(manifest["device"]["name"], {})
    budget_ms = figures.get("budget")
    if time is None or budget_ms is None or "measured_p50" not in figures:
        return
    whole_ms = figures["measured_p50"] + time["added_ms"]
    if whole_ms > budget_ms:
        yield (
            f"with post-processing it takes about {whole_ms:.3f} ms on the test images, more than "
            f"the budget of {budget_ms:.3f} ms, which is without it: lower the budget by "
            f"{time['added_ms']:.3f} ms if the whole has to fit"
        )
