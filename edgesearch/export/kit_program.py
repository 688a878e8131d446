"""Run the engine beside this file on images: `python run.py IMAGE …`.

Requires Python 3.10, numpy, Pillow and the runtime that manifest.json names: onnxruntime, or
TensorRT with pycuda or cuda-bindings. Images are preprocessed as in training. TensorRT builds its
engine from the ONNX file on the first run, which takes a while.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
SIXTEEN_BIT = 65535
LONGEST_ASPECT = 4
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
WARM_UP_RUNS = 5


class Refusal(Exception):
    """An error that the user can mend: required, found, remedy."""


def main() -> int:
    """Run the engine, print outputs and latency; returns 2 for an error that the user can mend."""
    options = read_options()
    try:
        manifest = read_manifest()
        pixels = [prepare(path, manifest["preprocess"]) for path in options.images]
        labels = (HERE / "labels.txt").read_text(encoding="utf-8").split("\n")
        session = load(manifest)
        with refusing():
            outputs = [run(session, manifest, image) for image in pixels]
            times_ms = time_ms(session, options.runs)
        if options.save is not None:
            save(options.save, outputs)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Refusal as refusal:
        required, found, remedy = refusal.args
        print(f"error: required: {required}\n  found: {found}\n  {remedy}", file=sys.stderr)
        return 2
    results = [
        {"image": str(path), **describe(output, labels)}
        for path, output in zip(options.images, outputs, strict=True)
    ]
    show(results, times_ms, manifest, options.json)
    return 0


def save(path: Path, outputs: list[dict[str, NDArray[Any]]]) -> None:
    """Save the outputs of all images."""
    arrays: dict[str, Any] = {
        f"{name}_{n}": array for n, output in enumerate(outputs) for name, array in output.items()
    }
    np.savez(path, **arrays)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the engine beside this file on images.")
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=50, help="number of timed runs (50)")
    parser.add_argument("--save", type=Path, help="save the outputs in this .npz file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def read_manifest() -> dict[str, Any]:
    """Read the manifest, and check the engine's hash."""
    try:
        manifest: dict[str, Any] = json.loads((HERE / "manifest.json").read_text("utf-8"))
        name = manifest["kit_file"]
        found = hashlib.sha256((HERE / name).read_bytes()).hexdigest()
        wanted = manifest["files"][name]["sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refusal(
            f"a complete kit in {HERE}", f"{type(error).__name__}: {error}", "Unpack it again."
        ) from error
    if found != wanted:
        raise Refusal(
            f"{name} with the SHA-256 {wanted} of manifest.json", found, "Unpack the kit again."
        )
    return manifest


def prepare(path: Path, rule: dict[str, Any]) -> NDArray[np.float32]:
    """Preprocess an image to (C, R, R)."""
    image = resize_and_crop(decode(path, rule["channels"]), rule)
    mean = np.array(rule["mean"], np.float32)[:, None, None]
    std = np.array(rule["std"], np.float32)[:, None, None]
    scaled = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return np.asarray((scaled - mean) / std, np.float32)


def decode(path: Path, channels: int) -> NDArray[np.uint8]:
    """Pixels of an image file, (H, W, C): upright, alpha on black, 8 bits."""
    try:
        with Image.open(path) as opened:
            opened.load()
            image: Image.Image = opened
            with contextlib.suppress(Exception):  # ignore damaged EXIF
                image = ImageOps.exif_transpose(opened) or opened
            pixels = np.array(eight_bits(image).convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # Pillow raises many types on damaged files
        raise Refusal(
            "an image that can be read",
            f"{path}: {error or type(error).__name__}",
            "Name another file.",
        ) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def eight_bits(image: Image.Image) -> Image.Image:
    """Convert to an opaque image with 8 bits per channel."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > SIXTEEN_BIT:
            raise ValueError(f"pixel values {values.min()} to {values.max()}, not 0 to 65535")
        return Image.fromarray(((values * 255 + SIXTEEN_BIT // 2) // SIXTEEN_BIT).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range is not defined")
    palette = image.palette.mode if image.mode == "P" and image.palette else ""
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or palette.endswith("A")
    if transparent or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(opaque, image.convert("RGBA"))
    return image


def resize_and_crop(image: NDArray[np.uint8], rule: dict[str, Any]) -> NDArray[np.uint8]:
    """(H, W, C) to (R, R, C): resize the short side with antialiasing, crop the centre."""
    height, width = image.shape[:2]
    longest = LONGEST_ASPECT * min(height, width)
    image = centre(image, min(height, longest), min(width, longest))
    height, width = image.shape[:2]
    resolution, short = rule["resolution"], min(height, width)
    target = round(resolution * rule["resize_ratio"])
    if short != target:
        size = (target * width // short, target * height // short)
        kind = FILTERS[rule["interpolation"]]
        resized = [
            np.asarray(Image.fromarray(image[..., channel].astype(np.float32)).resize(size, kind))
            for channel in range(image.shape[2])
        ]
        image = np.rint(np.stack(resized, axis=-1)).clip(0, 255).astype(np.uint8)
    return centre(image, resolution, resolution)


def centre(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Central crop of an image."""
    top = round((image.shape[0] - height) / 2)
    left = round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


def load(manifest: dict[str, Any]) -> Any:
    """Open a session of the engine."""
    os.environ.setdefault("EDGESEARCH_CACHE", str(HERE / "cache"))
    sys.path.insert(0, str(HERE))
    from devices.runtimes.open_runtime import open_runtime
    from devices.spec import DeviceSpec

    local: dict[str, Any] = {"transport": "local", "hosts": [], "ssh_config": None}
    name = manifest["kit_file"]
    with refusing():
        runtime = open_runtime(DeviceSpec.from_dict({**manifest["device"], **local}))
        wanted = manifest["files"][name].get("runtime_version")
        if not name.endswith(".onnx") and wanted not in (None, runtime.version):
            raise Refusal(
                f"{runtime.name} {wanted}, the version that compiled {name}",
                f"{runtime.name} {runtime.version}",
                "Install that version, or export again with this one.",
            )
        return runtime.load(HERE / name)


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn errors of a runtime into `Refusal`."""
    from devices.errors import UserError

    try:
        yield
    except UserError as error:
        raise Refusal(error.required, error.found, error.remedy) from error


def run(session: Any, manifest: dict[str, Any], image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The outputs for one image, repeated to fill the engine's batch."""
    name = manifest["input"]["name"]
    batch = session.inputs[name][0]
    outputs = session.run({name: np.repeat(image[None], batch, axis=0)})
    return {name: output[0] for name, output in outputs.items()}


def time_ms(session: Any, runs: int) -> list[float]:
    """Durations of single runs."""
    session.time_ms(WARM_UP_RUNS)
    return list(session.time_ms(max(runs, 1)))


def describe(outputs: dict[str, NDArray[Any]], labels: list[str]) -> dict[str, Any]:
    """Classes with probabilities, or shape and norm of features."""
    if "logits" in outputs:
        logits = outputs["logits"].astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares)[:5]
        return {"classes": {labels[n]: float(shares[n]) for n in best}}
    return {
        "outputs": {
            name: {"shape": list(array.shape), "norm": float(np.linalg.norm(array))}
            for name, array in outputs.items()
        }
    }


def show(
    results: list[dict[str, Any]], times_ms: list[float], manifest: dict[str, Any], as_json: bool
) -> None:
    """Print predictions and latency."""
    median_ms, p95_ms = (float(np.percentile(times_ms, q)) for q in (50, 95))
    batch = manifest["input"]["shape"][0]
    if as_json:
        latency = {"median_ms": median_ms, "p95_ms": p95_ms, "runs": len(times_ms)}
        print(json.dumps({"results": results, "latency": latency}))
        return
    for result in results:
        print(result["image"])
        for name, share in result.get("classes", {}).items():
            print(f"  {share:6.1%}  {name}")
        for name, about in result.get("outputs", {}).items():
            print(f"  {name}: shape {about['shape']}, norm {about['norm']:.4f}")
    print(
        f"latency: median {median_ms:.3f} ms, 95th percentile {p95_ms:.3f} ms "
        f"({len(times_ms)} runs, batch {batch}, {manifest['device']['runtime']})"
    )


if __name__ == "__main__":
    sys.exit(main())
