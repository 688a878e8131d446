"""Run the engine beside this file on images; run.py starts it.

Images are preprocessed as in training. TensorRT builds its engine from the ONNX file on the first
run, which takes a while.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

HERE = Path(__file__).resolve().parent
LABELS = "labels.txt"
SIXTEEN_BIT = 65535
LONGEST_ASPECT = 4
RESAMPLING = getattr(Image, "Resampling", Image)  # Pillow 9.0 has none
FILTERS = {"bilinear": RESAMPLING.BILINEAR, "bicubic": RESAMPLING.BICUBIC}
WARM_UP_RUNS = 5
LEAST_SCORE = 0.3
"""Boxes below are neither listed nor drawn."""
OVERLAP = 0.5
MOST = 100
LISTED = 10
MASK_STRENGTH = 0.5
COLOURS = (
    *((230, 60, 60), (60, 110, 230), (40, 170, 80), (240, 180, 30), (150, 70, 200)),
    *((20, 180, 190), (240, 120, 30), (220, 90, 160), (120, 120, 120), (130, 90, 50)),
)
WITH_BOXES = "from_a_prepared_image_to_boxes"
CLOSED_PIPE = 141
"""Exit code of programs that a closed pipe ends."""
MANIFEST_KEYS = ("device", "files", "input", "kit_file", "least_versions", "output", "preprocess")
RULE_KEYS = ("channels", "interpolation", "mean", "resize_ratio", "resolution", "std")
AGAIN = "Unpack kit.zip again."


class Refusal(Exception):
    """An error that the user can mend: required, found, remedy."""


class Unreadable(Exception):
    """An image that cannot be read, and why."""


def main() -> int:
    """Print outputs and latency; returns 2 for an error that the user can mend."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None if it was closed
        stream.reconfigure(errors="backslashreplace")
    options = read_options()
    try:
        predict(options)
        if sys.stdout is not None:
            sys.stdout.flush()
        return 0
    except Refusal as refusal:
        required, found, remedy = refusal.args
        print(f"error: required: {required}\n  found: {found}\n  {remedy}", file=sys.stderr)
        return 2
    except OSError as error:
        with contextlib.suppress(OSError, AttributeError):  # nothing is left to flush at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # run.py … | head
            return CLOSED_PIPE
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def predict(options: argparse.Namespace) -> None:
    """Run the engine on each image, then time it."""
    manifest = read_manifest()
    labels = read_labels(manifest)
    for path in filter(None, (options.save, options.draw)):
        if not path.absolute().parent.is_dir():
            raise Refusal(f"a folder for {path}", "none", "Create it, or name another file.")
    if options.draw is not None:
        Image.init()
        if manifest["output"] not in ("detection", "segmentation"):
            raise Refusal(
                "an engine that finds boxes or classes of pixels, for --draw",
                f"one with the output {manifest['output']}",
                "Leave --draw out.",
            )
        if options.draw.suffix.lower() not in Image.registered_extensions():
            raise Refusal("an image format for --draw", str(options.draw), "Name a .png file.")
    session: Any = None
    results: list[dict[str, Any]] = []
    unreadable: list[Unreadable] = []
    outputs: dict[str, Any] = {}
    for number, path in enumerate(options.images):
        try:
            image = decode(path, manifest["preprocess"]["channels"])
            pixels = prepare(image, manifest["preprocess"])
        except Unreadable as error:
            unreadable.append(error)
            continue
        session = session or load(manifest)
        found = run(session, manifest, pixels)
        about = describe(found, labels, manifest, image.shape[:2])
        last = pixels, image.shape[:2]
        if options.draw is not None:
            place = options.draw if len(options.images) == 1 else numbered(options.draw, number)
            draw(image, found, about, labels, manifest).save(place)
        results.append({"image": str(path), **about})
        if not options.json:
            show(results[-1])
        if options.save is not None:
            outputs.update({f"{name}_{number}": array for name, array in found.items()})
    if results:
        if options.save is not None:
            with options.save.open("wb") as file:  # np.savez would change the name
                np.savez(file, **outputs)
        times = {"": time_ms(session, options.runs)}
        if manifest["output"] == "detection":  # how long it takes depends on the image
            times[WITH_BOXES] = time_boxes_ms(session, options.runs, labels, manifest, *last)
        show_latency(times, results, manifest, options.json)
    if unreadable:
        count = f"{len(unreadable)} of {len(options.images)} cannot be read; the first: "
        raise Refusal(
            "images that can be read",
            (count if len(options.images) > 1 else "") + str(unreadable[0]),
            "Name other files" + (": the rest is done." if results else "."),
        )


def count_from_one(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is required, not {number}")
    return number


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="run.py", description="Run the engine beside this file on images."
    )
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+")
    parser.add_argument("--runs", type=count_from_one, default=50, help="number of timed runs (50)")
    parser.add_argument("--save", type=Path, help="save the outputs in this .npz file")
    parser.add_argument("--draw", type=Path, help="draw boxes or a coloured mask into this image")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def read_manifest() -> dict[str, Any]:
    """Read the manifest, and check the engine's hash."""
    try:
        manifest: dict[str, Any] = json.loads((HERE / "manifest.json").read_text("utf-8"))
        name, *_ = (manifest[key] for key in ("kit_file", *MANIFEST_KEYS))
        for key in RULE_KEYS:
            manifest["preprocess"][key]
        found = hashlib.sha256((HERE / name).read_bytes()).hexdigest()
        wanted = manifest["files"][name]["sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refusal(
            f"a complete kit in {HERE}", f"{type(error).__name__}: {error}", AGAIN
        ) from error
    if found != wanted:
        raise Refusal(f"{name} with the SHA-256 {wanted} of manifest.json", found, AGAIN)
    return manifest


def read_labels(manifest: dict[str, Any]) -> list[str]:
    """The lines of labels.txt, one for each class; none if the outputs are not classes."""
    if manifest["output"] not in ("logits", "detection", "segmentation"):
        return []
    try:
        text = (HERE / LABELS).read_text("utf-8-sig")  # editors on Windows add a mark
    except (OSError, ValueError) as error:
        raise Refusal(f"{LABELS} in UTF-8", f"{type(error).__name__}: {error}", AGAIN) from error
    labels, count = re.sub(r"\n\Z", "", text).split("\n"), len(manifest["classes"])
    if len(labels) != count:
        raise Refusal(
            f"{count} lines in {HERE / LABELS}, one for each class",
            f"{len(labels)} lines",
            "Correct it, or unpack kit.zip again.",
        )
    return labels


def prepare(image: NDArray[np.uint8], rule: dict[str, Any]) -> NDArray[np.float32]:
    """Preprocess an image (H, W, C) to (C, R, R)."""
    image = fit(image, rule)
    mean = np.array(rule["mean"], np.float32)[:, None, None]
    std = np.array(rule["std"], np.float32)[:, None, None]
    scaled = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return np.asarray((scaled - mean) / std, np.float32)


def decode(path: Path, channels: int) -> NDArray[np.uint8]:
    """Pixels of an image file, (H, W, C): upright, alpha on black, 8 bits."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as opened:  # pipes cannot be rewound
            opened.load()
            image: Image.Image = opened
            with contextlib.suppress(Exception):  # ignore damaged EXIF
                image = ImageOps.exif_transpose(opened) or opened
            pixels = np.array(eight_bits(image).convert("L" if channels == 1 else "RGB"))
    except Exception as error:  # Pillow raises many types on damaged files
        raise Unreadable(f"{path}: {reason_of(error)}") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def reason_of(error: Exception) -> str:
    """Why an image cannot be read."""
    if isinstance(error, UnidentifiedImageError):  # its message names only a buffer in memory
        return "no image of a kind that Pillow knows"
    if isinstance(error, IsADirectoryError):
        return "a folder: name its files, as in FOLDER/*"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


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


def within(rule: dict[str, Any], height: int, width: int) -> tuple[int, int]:
    """Height and width that a stretched or letterboxed image takes of the input."""
    side = rule["resolution"]
    if rule.get("fit") == "stretch":
        return side, side
    longest = max(height, width)
    return max(1, round(side * height / longest)), max(1, round(side * width / longest))


def fit(image: NDArray[np.uint8], rule: dict[str, Any]) -> NDArray[np.uint8]:
    """(H, W, C) to (R, R, C): crop, stretch, or letterbox with borders below or on the right."""
    if rule.get("fit", "crop") == "crop":
        return resize_and_crop(image, rule)
    height, width = within(rule, *image.shape[:2])
    whole = np.zeros((rule["resolution"], rule["resolution"], image.shape[2]), np.uint8)
    whole[:height, :width] = resize(image, (width, height), rule)
    return whole


def resize(
    image: NDArray[np.uint8], size: tuple[int, int], rule: dict[str, Any]
) -> NDArray[np.uint8]:
    """(H, W, C) to this width and height, with antialiasing."""
    kind = FILTERS[rule["interpolation"]]
    resized = [
        np.asarray(Image.fromarray(image[..., channel].astype(np.float32)).resize(size, kind))
        for channel in range(image.shape[2])
    ]
    return np.asarray(np.rint(np.stack(resized, axis=-1)).clip(0, 255), np.uint8)


def resize_and_crop(image: NDArray[np.uint8], rule: dict[str, Any]) -> NDArray[np.uint8]:
    """(H, W, C) to (R, R, C): resize the short side with antialiasing, crop the centre."""
    height, width = image.shape[:2]
    longest = LONGEST_ASPECT * min(height, width)
    image = centre(image, min(height, longest), min(width, longest))
    height, width = image.shape[:2]
    resolution, short = rule["resolution"], min(height, width)
    target = round(resolution * rule["resize_ratio"])
    if short != target:
        image = resize(image, (target * width // short, target * height // short), rule)
    return centre(image, resolution, resolution)


def centre(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Central crop of an image."""
    top = round((image.shape[0] - height) / 2)
    left = round((image.shape[1] - width) / 2)
    return image[top : top + height, left : left + width]


def load(manifest: dict[str, Any]) -> Any:
    """Open a session of the engine."""
    if os.access(HERE, os.W_OK):
        os.environ.setdefault("EDGESEARCH_CACHE", str(HERE / "cache"))
    sys.path.insert(0, str(HERE))
    try:
        from devices.errors import UserError
        from devices.runtimes.open_runtime import open_runtime
        from devices.spec import DeviceSpec
    except Exception as error:  # missing or cut files
        raise Refusal(
            f"a complete kit in {HERE}", f"{type(error).__name__}: {error}", AGAIN
        ) from error

    here: dict[str, Any] = {"transport": "local", "hosts": [], "ssh_config": None, "machine": None}
    name, least = manifest["kit_file"], manifest["least_versions"]
    try:
        runtime = open_runtime(DeviceSpec.from_dict({**manifest["device"], **here}))
        if numbers(runtime.version) < numbers(least[runtime.name]):
            raise Refusal(
                f"{runtime.name} {least[runtime.name]} or newer",
                runtime.version,
                f"Install it: pip install '{runtime.name}>={least[runtime.name]}'",
            )
        wanted = manifest["files"][name].get("runtime_version")
        if not name.endswith(".onnx") and wanted not in (None, runtime.version):
            raise Refusal(
                f"{runtime.name} {wanted}, the version that compiled {name}",
                f"{runtime.name} {runtime.version}",
                "Install that version, or export again with this one.",
            )
        return runtime.load(HERE / name)
    except UserError as error:
        raise Refusal(error.required, error.found, error.remedy) from error


def numbers(version: str) -> list[int]:
    """The first two numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


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
    with refusing():
        outputs = session.run({name: np.repeat(image[None], batch, axis=0)})
    return {name: output[0] for name, output in outputs.items()}


def time_ms(session: Any, runs: int) -> list[float]:
    """Durations of single runs."""
    with refusing():
        session.time_ms(WARM_UP_RUNS)
        return list(session.time_ms(runs))


def time_boxes_ms(
    session: Any,
    runs: int,
    labels: list[str],
    manifest: dict[str, Any],
    pixels: NDArray[Any],
    size: tuple[int, ...],
) -> list[float]:
    """Durations from a prepared image to its boxes."""
    times_ms = []
    for _ in range(runs):
        begun = time.perf_counter()
        describe(run(session, manifest, pixels), labels, manifest, size)
        times_ms.append(1000 * (time.perf_counter() - begun))
    return times_ms


def describe(
    outputs: dict[str, NDArray[Any]],
    labels: list[str],
    manifest: dict[str, Any],
    size: tuple[int, ...],
) -> dict[str, Any]:
    """Classes, boxes or shares of pixels; else shape and norm of features."""
    if manifest["output"] == "detection":
        return {"boxes": boxes_of(outputs, labels, manifest["preprocess"], *size)}
    if manifest["output"] == "segmentation":
        classes = classes_of_pixels(outputs, manifest["preprocess"], *size)
        counts = np.bincount(classes.flatten(), minlength=len(labels))
        shares = (counts / counts.sum()).tolist()
        return {"pixels": [{"name": n, "share": s} for n, s in zip(labels, shares)]}
    if "logits" in outputs:
        logits = outputs["logits"].astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(-shares)[:5].tolist()
        return {
            "classes": [
                {"class": n, "name": labels[n], "probability": float(shares[n])} for n in best
            ]
        }
    return {
        "outputs": {
            name: {"shape": list(array.shape), "norm": float(np.linalg.norm(array))}
            for name, array in outputs.items()
        }
    }


def boxes_of(
    outputs: dict[str, NDArray[Any]],
    labels: list[str],
    rule: dict[str, Any],
    height: int,
    width: int,
) -> list[dict[str, Any]]:
    """The best box of each object, in pixels of the image, best first."""
    scores, corners = outputs["scores"].astype(np.float64), outputs["boxes"].astype(np.float64)
    taken = np.array(within(rule, height, width)[::-1] * 2) / rule["resolution"]
    corners = np.clip(corners, 0, 1)
    shown = np.clip(corners / taken, 0, 1) * np.array([width, height] * 2)
    found: list[dict[str, Any]] = []
    if "labels" in outputs:  # the graph has chosen them
        for label, score, box in zip(outputs["labels"].tolist(), scores.tolist(), shown):
            if label >= 0 and score > LEAST_SCORE:
                found.append(a_box(labels[label], label, score, box))
        return found
    for label, name in enumerate(labels):
        order = np.argsort(-scores[:, label], kind="stable")
        order = order[scores[order, label] > LEAST_SCORE]
        while len(order) and len(found) < MOST * len(labels):
            best, rest = corners[order[0]], corners[order[1:]]
            found.append(a_box(name, label, float(scores[order[0], label]), shown[order[0]]))
            shared = np.prod(
                np.clip(
                    np.minimum(best[2:], rest[:, 2:]) - np.maximum(best[:2], rest[:, :2]), 0, None
                ),
                axis=1,
            )
            own = np.prod(best[2:] - best[:2])
            areas = np.prod(rest[:, 2:] - rest[:, :2], axis=1)
            order = order[1:][shared <= OVERLAP * np.maximum(own + areas - shared, 1e-9)]
    return sorted(found, key=lambda each: -float(each["score"]))[:MOST]


def a_box(name: str, label: int, score: float, corners: NDArray[Any]) -> dict[str, Any]:
    """A box in pixels of the image."""
    box = [round(float(each), 1) for each in corners]
    return {"name": name, "class": label, "score": score, "box": box}


def classes_of_pixels(
    outputs: dict[str, NDArray[Any]], rule: dict[str, Any], height: int, width: int
) -> NDArray[np.uint8]:
    """The class (H, W) of each pixel of the image."""
    classes = outputs["logits"].argmax(axis=0).astype(np.uint8)
    high, wide = within(rule, height, width)
    part = Image.fromarray(classes[:high, :wide])
    return np.asarray(part.resize((width, height), RESAMPLING.NEAREST))


def draw(
    image: NDArray[np.uint8],
    outputs: dict[str, NDArray[Any]],
    about: dict[str, Any],
    labels: list[str],
    manifest: dict[str, Any],
) -> Image.Image:
    """The image with boxes and names, or with coloured classes and their names."""
    height, width = image.shape[:2]
    colours = np.array([COLOURS[n % len(COLOURS)] for n in range(len(labels))], np.float32)
    shown = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    if manifest["output"] == "segmentation":
        classes = classes_of_pixels(outputs, manifest["preprocess"], height, width)
        mask = classes > 0  # class 0 is the background
        mixed = shown * (1 - MASK_STRENGTH) + colours[classes] * MASK_STRENGTH
        shown = np.where(mask[..., None], mixed, shown).astype(np.uint8)
    picture = Image.fromarray(shown)
    pen = ImageDraw.Draw(picture)
    for each in about.get("boxes", ()):
        colour = COLOURS[each["class"] % len(COLOURS)]
        left, top, right, bottom = each["box"]
        pen.rectangle([left, top, right, bottom], outline=colour, width=max(1, width // 300))
        write(pen, (left + 2, top), f"{each['name']} {each['score']:.2f}", colour)
    for number, each in enumerate(about.get("pixels", [])[1:], 1):
        place = (2.0, 12.0 * (number - 1))
        write(pen, place, f"{each['name']} {each['share']:.1%}", COLOURS[number % len(COLOURS)])
    return picture


def write(pen: Any, place: tuple[float, float], text: str, colour: Any) -> None:
    """Write on a picture; old fonts of Pillow lack most letters."""
    try:
        pen.text(place, text, fill=colour)
    except UnicodeError:
        pen.text(place, text.encode("ascii", "replace").decode("ascii"), fill=colour)


def numbered(path: Path, number: int) -> Path:
    """The path of one of several pictures."""
    return path.with_name(f"{path.stem}_{number}{path.suffix}")


def show(result: dict[str, Any]) -> None:
    """Print the prediction for an image."""
    print(result["image"])
    for about in result.get("classes", ()):
        print(f"  {about['probability']:6.1%}  {about['name']}")
    boxes = result.get("boxes", ())
    for about in boxes[:LISTED]:
        print(f"  {about['score']:6.1%}  {about['name']}  {about['box']}")
    if len(boxes) > LISTED:
        print(f"  and {len(boxes) - LISTED} more")
    if "boxes" in result and not boxes:
        print("  nothing found")
    for about in result.get("pixels", ()):
        print(f"  {about['share']:6.1%}  {about['name']}")
    for name, about in result.get("outputs", {}).items():
        print(f"  {name}: shape {about['shape']}, norm {about['norm']:.4f}")


def show_latency(
    times_ms: dict[str, list[float]],
    results: list[dict[str, Any]],
    manifest: dict[str, Any],
    as_json: bool,
) -> None:
    """Print the latencies by what they are of; as JSON after all predictions, in one object."""
    latency: dict[str, Any] = {}
    batch, runtime = manifest["input"]["shape"][0], manifest["device"]["runtime"]
    for of, values in times_ms.items():
        median_ms, p95_ms = (float(np.percentile(values, q)) for q in (50, 95))
        about = {"median_ms": median_ms, "p95_ms": p95_ms, "runs": len(values)}
        latency.update({of: about} if of else about)
        if not as_json:
            print(
                f"{of.replace('_', ' ') or 'latency'}: median {median_ms:.3f} ms, 95th percentile "
                f"{p95_ms:.3f} ms ({len(values)} runs, batch {batch}, {runtime})"
            )
    if as_json:
        print(json.dumps({"results": results, "latency": latency}))


if __name__ == "__main__":
    sys.exit(main())
