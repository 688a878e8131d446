"""Files of weights: their tensors, and what a file is that has none."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from devices.values import did_you_mean
from edgesearch.errors import CheckpointError
from edgesearch.supernet.weight_packages import PACKAGES

_AGAIN = "Download it again."
_SOURCE = "Take the weights that it was made from"
_TEACHER = "as a teacher it serves as it is: pretrain.teacher"
_INFERENCE = "for inference: normalisations are no longer in it"
_ENDINGS = {
    ".onnx": (f"a network in ONNX form, {_INFERENCE}", f"{_SOURCE}; {_TEACHER}.onnx."),
    ".ort": (f"a network in onnxruntime's form, {_INFERENCE}", f"{_SOURCE}."),
    ".engine": (f"an engine of TensorRT, {_INFERENCE}", f"{_SOURCE}."),
    ".tflite": (f"a network of TensorFlow Lite, {_INFERENCE}", f"{_SOURCE}."),
    ".yaml": ("a configuration in YAML", "`edgesearch pretrain FILE` trains what it describes."),
    ".yml": ("a configuration in YAML", "`edgesearch pretrain FILE` trains what it describes."),
}
"""What a file with this ending is, and what to do."""
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file", "Run `git lfs pull`."),
    (b"<", "a web page or XML", f"The download has failed. {_AGAIN}"),
    (b"\x89HDF", "an HDF5 file (Keras)", "Convert it to a `state_dict` of PyTorch."),
    (b"GGUF", "a language model in GGUF form", "Choose weights of a convolutional network."),
    (b"\x93NUMPY", "an array of numpy", "Convert it to a `state_dict` of PyTorch."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first."),
    (b"{", "a text in JSON", "Choose the file of the weights themselves."),
)
"""First bytes of files that hold no tensors, what they are, and what to do."""
_READ = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar")


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file that torch.save or safetensors wrote, nested names joined with dots.

    The content decides, not the ending. Tensors of large files are read from disk when used.

    Raises:
        CheckpointError: There is no such file, or it is none of tensors; says what it is, and what
            to do. A file that would run code is refused.
    """
    return dict(_flat(_read(path, beginning_of(path))))


def _read(path: Path, beginning: bytes) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    is_zip = beginning.startswith(b"PK")
    try:
        if beginning[8:9] == b"{":
            return load_file(path)
        if is_zip:
            _check_archive(path)
        # By path, torch reads large files when they are used, but judges them by their ending.
        by_path = is_zip and path.suffix != ".safetensors"
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals([argparse.Namespace]),  # options in checkpoints
        ):
            given = path if by_path else file
            found = torch.load(given, map_location="cpu", weights_only=True, mmap=by_path)
    except pickle.UnpicklingError as error:
        if not beginning.startswith((b"PK", b"\x80")):
            raise _none_of(path, "no file that torch.save or safetensors wrote", _AGAIN) from error
        code = re.search(r"GLOBAL (\S+)", str(error))
        named = f"objects that would run code when they are loaded ({code[1]})" if code else ""
        raise _none_of(
            path,
            named or "a pickle of other objects than tensors",
            "Load it where you trust it (torch.load with weights_only=False), and save its "
            "`state_dict()` alone.",
        ) from error
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, LookupError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        found = f"a damaged or incomplete file of {path.stat().st_size:,} bytes ({reason})"
        raise _none_of(path, found, _AGAIN) from error
    if isinstance(found, Mapping) and str(found.get("format")).startswith("edgesearch"):
        raise _none_of(
            path,
            "a training state of edgesearch",
            "Take the supernet: model.safetensors beside it, or the run's folder.",
        )
    return found


def beginning_of(path: Path) -> bytes:
    """The first bytes of a file that may hold tensors.

    Raises:
        CheckpointError: It cannot, or there is none.
    """
    if path.is_dir():
        inside = sorted(each.name for each in path.iterdir() if each.suffix in _READ)
        shown = f"with {', '.join(inside[:3])}" if inside else "without files of weights"
        raise _none_of(path, f"a folder {shown}", "Name the file.")
    if not path.is_file():
        raise _no_file(path)
    try:
        with path.open("rb") as file:
            beginning = file.read(512)
    except OSError as error:
        raise _none_of(path, str(error.strerror), "Correct its permissions.") from error
    if not beginning:
        raise _none_of(path, "an empty file", _AGAIN)
    if not any(beginning):
        raise _none_of(path, "a file that begins with zeros", _AGAIN)
    for start, found, remedy in _BEGINNINGS:
        if beginning.startswith(start):
            raise _none_of(path, found, remedy)
    if path.suffix.lower() in _ENDINGS:
        raise _none_of(path, *_ENDINGS[path.suffix.lower()])
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in beginning):
        raise _none_of(path, "a text", "Choose the file of the weights themselves.")
    return beginning


def _no_file(path: Path) -> CheckpointError:
    if path.is_symlink():
        return _none_of(path, f"a link to {path.readlink()}, which is missing", "Correct the link.")
    if path.exists():
        return _none_of(path, "a pipe, socket or device", "Copy its content into a file.")
    remedy = f"Correct the path, or take one of {', '.join(PACKAGES)}."
    guess = did_you_mean(str(path), list(PACKAGES))
    return _none_of(path, "no such file", f"{guess} {remedy}".lstrip())


def _check_archive(path: Path) -> None:
    """Raise for a zip archive that is none of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError("its end is missing") from error
    if any(name.endswith("constants.pkl") for name in names):
        raise _none_of(path, "a program in TorchScript", f"{_SOURCE}; {_TEACHER}.torchscript.")
    if not any(name.endswith("data.pkl") for name in names):
        shown = ", ".join(names[:3]) or "nothing"
        raise _none_of(path, f"a zip archive with {shown}", "Unpack it, and name the file in it.")


def _none_of(path: Path, found: str, remedy: str) -> CheckpointError:
    return CheckpointError(f"a file of weights (.pth or .safetensors) at {path}", found, remedy)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of nested mappings, by names joined with dots."""
    if isinstance(value, torch.Tensor):
        yield prefix[:-1], value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}{name}.")
