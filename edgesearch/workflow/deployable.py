"""A winner as the network that is deployed, and its files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devices import DeviceSpec, TensorRTRtxBuilder
from edgesearch.errors import ExportError
from edgesearch.evaluate import compute_features, fit_linear
from edgesearch.export import (
    FP16_FILE,
    INT8_FILE,
    KIT,
    MEASURED_FILES,
    ONNX_FILE,
    TENSORRT_INT8_FILE,
    WEIGHTS_FILE,
    KnnImages,
    TensorRTTarget,
    build_engines,
    convert_to_fp16,
    make_manifest,
    quantize_network,
    save_weights,
    write_kit,
    write_manifest,
)
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet import Subnet, SupernetWeights, recalibrate
from edgesearch.workflow.events import Event, Report
from edgesearch.workflow.image_pool import ImagePool
from edgesearch.workflow.profile import table_digest
from edgesearch.workflow.search import SearchImages
from edgesearch.workflow.winners import Winner
from profilers import LatencyTable

PARITY_IMAGES = 64
QUANTIZATION_IMAGES = 256
KNN_IMAGES = 512
"""So many with labels, and so many to classify, judge a network of eight bits; others at most."""
KNN_GLANCE = (1e11, 64)
"""Multiply-accumulates that each kind may take of a network that is not judged by its accuracy, and
images of each kind at the least: it is told in the time that the rest of the export takes."""


@dataclass(frozen=True)
class Deployable:
    """A recalibrated subnet, with a classifier if logits are wanted.

    Attributes:
        network: In evaluation mode, images to what is wanted.
        resolution: Height and width of its input, in pixels.
        metadata: What a user of the ONNX file has to know: JSON texts by name.
        calibration: Number and hash of the images that its normalisation, and its ranges in eight
            bits, come from.
    """

    network: Subnet
    resolution: int
    metadata: dict[str, str]
    calibration: dict[str, Any]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs: of stages one for each, such as "layer1"."""
        output = self.network.output
        return list(self.network.stage_names) if output == "stages" else [output]


def make_deployable(
    space: SearchSpace,
    weights: SupernetWeights,
    pool: ImagePool,
    architecture: Architecture,
    looked_at: SearchImages,
    output: str,
) -> Deployable:
    """Take a subnet out of the supernet, calibrated as in the search.

    Args:
        space: The search space.
        weights: The trained supernet.
        pool: Images for calibration, and for the classifier.
        architecture: The subnet.
        looked_at: Says which images the calibration uses.
        output: One of `OUTPUTS`.

    Raises:
        DataError: Logits are wanted, but the images have no labels.
    """
    resolution = architecture.resolution
    subnet = weights.subnet(architecture)
    if output == "embeddings":
        network = Subnet(subnet, output, projector=weights.projector(architecture))
    else:
        network = Subnet(subnet, "stages" if output == "stages" else "features")
    network = network.to(memory_format=torch.channels_last).eval()
    calibration = pool.sample(resolution, 0, looked_at.calibration_images)
    recalibrate(network, calibration, looked_at.batch_size)
    if output == "logits":
        images = pool.labelled(resolution)
        features = compute_features(network, images.train, prepare=images.prepare)
        classifier = fit_linear(features, images.train_labels, len(pool.class_names))
        network.fc, network.output = classifier, output
    metadata = {
        "space": space.name,
        "architecture": json.dumps(architecture.to_dict()),
        "preprocess": json.dumps(pool.preprocess(resolution).to_dict()),
        "classes": json.dumps(list(pool.class_names)),
        "output": output,
    }
    digest = hashlib.sha256()
    for image in calibration:
        digest.update(image.contiguous().numpy().tobytes())
    about = {"images": len(calibration), "sha256_of_pixels": digest.hexdigest()}
    return Deployable(network, resolution, metadata, {**about, "image_set": pool.digest})


def calibration_batches(calibration: torch.Tensor, batch: int) -> list[np.ndarray]:
    """What shows the ranges of activations in eight bits.

    Args:
        calibration: (N, C, H, W), normalised.
        batch: Images in each run.

    Returns:
        Arrays (batch, C, H, W).

    Raises:
        ExportError: There are fewer images than a batch.
    """
    images = np.ascontiguousarray(calibration[:QUANTIZATION_IMAGES].contiguous().numpy())
    batches = [images[i : i + batch] for i in range(0, len(images) - batch + 1, batch)]
    if not batches:
        raise ExportError(
            f"at least {batch} images, which make a batch, to quantize the network with",
            f"{len(images)}",
            "Raise search.calibration_images, or set a smaller device.batch.",
        )
    return batches


def write_in_format(
    folder: Path,
    number_format: str,
    calibration: torch.Tensor,
    batch: int,
    quantization: str = "minmax",
) -> Path:
    """Write the network in a folder in the number format that its device runs.

    Args:
        folder: Holds the network in single precision.
        number_format: One of `edgesearch.export.precision.NUMBER_FORMATS`.
        calibration: (N, C, H, W), normalised: shows the ranges of activations.
        batch: Images in each run.
        quantization: How ranges of eight bits are chosen: one of `CALIBRATIONS`.

    Returns:
        The file that is measured; the one in single precision if that is the format.

    Raises:
        ExportError: The network cannot be converted, or the file cannot be written.
    """
    onnx_path = folder / ONNX_FILE
    if number_format == "fp32":
        return onnx_path
    if number_format == "fp16":
        convert_to_fp16(onnx_path, folder / FP16_FILE)
        return folder / FP16_FILE
    batches = calibration_batches(calibration, batch)
    quantize_network(onnx_path, folder / INT8_FILE, number_format, batches, quantization)
    return folder / INT8_FILE


def write_winner(
    folder: Path,
    deployable: Deployable,
    pool: ImagePool,
    winner: Winner,
    *,
    space: SearchSpace,
    device: DeviceSpec,
    table: Path,
    tensorrt: TensorRTTarget | None,
    form: Mapping[str, Any],
    calibration: torch.Tensor | None = None,
) -> tuple[str, ...]:
    """Build a winner's engines from the ONNX file in its folder, check them, write the manifest.

    Args:
        folder: The winner's folder.
        deployable: The subnet.
        pool: Images to check on.
        winner: As measured.
        space: The search space.
        device: Where it was measured.
        table: The device's latency table.
        tensorrt: What TensorRT engines are built for; None builds none.
        form: What else the manifest tells of how the files were made; its `quantization` is how
            ranges of eight bits are chosen.
        calibration: (N, C, H, W), normalised: shows these ranges to engines in eight bits.

    Returns:
        What could not be judged, in words.

    Raises:
        ExportError: An engine differs from the subnet.
        CompileError: A runtime could not compile the network.
    """
    images = pool.sample(deployable.resolution, 0, max(PARITY_IMAGES, device.batch))
    glance = min(KNN_IMAGES, max(int(KNN_GLANCE[0] / winner.macs), KNN_GLANCE[1]))
    built_in = None if tensorrt is None else tensorrt.precision
    knn_images = KNN_IMAGES if "int8" in (device.precision, built_in) else glance
    if built_in == "int8" and calibration is not None:
        batches, path = calibration_batches(calibration, device.batch), folder / TENSORRT_INT8_FILE
        kind = "s8s8-symmetric"
        quantize_network(folder / ONNX_FILE, path, kind, batches, form["quantization"])
    files: dict[str, dict[str, Any]] = build_engines(
        folder,
        deployable.network,
        images,
        tensorrt,
        device.precision,
        logits=deployable.network.output == "logits",
        batch=device.batch,
        knn=_knn_images(pool, deployable.resolution, knn_images),
        knn_glance=glance,
    )
    definition = {"space_definition": json.dumps(space.to_dict())}
    save_weights(deployable.network, folder / WEIGHTS_FILE, {**deployable.metadata, **definition})
    files[WEIGHTS_FILE] = {"about": "weights of the subnet, for PyTorch"}
    engine = _kit_engine(files, device)
    facts = {
        "winner": winner.to_dict(),
        "space": space.to_dict(),
        "space_hash": space.space_hash,
        "device": device.to_dict(),
        **_measured_with(table),
        "table": {"file": table.name, "sha256_of_measurements": table_digest(table)},
        "input": {
            "name": "images",
            "shape": [device.batch, space.in_channels, *[deployable.resolution] * 2],
        },
        "measured_file": MEASURED_FILES[device.precision],
        "kit_file": engine,
        **{name: json.loads(deployable.metadata[name]) for name in ("preprocess", "classes")},
        "output": deployable.metadata["output"],
        "output_names": deployable.output_names,
        **form,
        "calibration": deployable.calibration,
        "licence_of_data": pool.licence,
    }
    write_kit(folder, engine, make_manifest(folder, files, facts))
    files[KIT] = {"about": f"{engine} with a program that runs it, for the device"}
    write_manifest(folder, files, facts)
    return _unjudged(files)


def _unjudged(files: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Which files were not judged by something, one text for each reason."""
    found: dict[str, list[str]] = {}
    for name, about in files.items():
        if "knn_note" in about:
            found.setdefault(about["knn_note"], []).append(name)
    return tuple(f"{', '.join(names)}: {note}" for note, names in found.items())


def _knn_images(pool: ImagePool, resolution: int, count: int) -> KnnImages | None:
    """Some labelled images, if there are any."""
    if not pool.has_labels:
        return None
    images = pool.labelled(resolution, count, count)
    labels = (images.train_labels, images.test_labels)
    return KnnImages(images.train, labels[0], images.test, labels[1], images.prepare)


def _measured_with(table: Path) -> dict[str, Any]:
    """What was there when the last session of the table was measured: that of the winner."""
    loaded = LatencyTable.load(table)
    found = dict(loaded.sessions[-1].fingerprint) or loaded.fingerprint.to_dict()
    runtime = {"name": found["runtime"], "version": found["runtime_version"]}
    return {"runtime": {**runtime, "driver": found.get("driver")}, "fingerprint": found}


def _kit_engine(files: Mapping[str, Mapping[str, Any]], device: DeviceSpec) -> str:
    """What goes to the device: a compiled file where it runs on every device of the kind."""
    wanted = f"subnet.{device.precision}{TensorRTRtxBuilder.suffix}"
    if device.runtime == "tensorrt-rtx" and wanted in files:
        return wanted
    return MEASURED_FILES[device.precision]


def buildable(tensorrt: TensorRTTarget | None, report: Report) -> TensorRTTarget | None:
    """The target, or None where it cannot be built for.

    TensorRT for RTX has wheels for Linux on x86-64 only: elsewhere engines are left out.

    Raises:
        RuntimeMissingError: TensorRT for RTX is not installed, and could be.
        CompileError: It does not know a compute capability.
    """
    if tensorrt is None:
        return None
    has_wheels = platform.system() == "Linux" and platform.machine() == "x86_64"
    if has_wheels or importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        TensorRTRtxBuilder(tensorrt.compute_capabilities)
        return tensorrt
    report(Event("export", "no TensorRT for RTX for this platform: its engines are left out"))
    return None


def check_batch(device: DeviceSpec, batch: str) -> None:
    """Refuse an open batch for a runtime that builds engines for one size.

    Raises:
        ExportError: The runtime is one of TensorRT's.
    """
    if batch == "dynamic" and device.runtime != "onnxruntime":
        raise ExportError(
            f"export.batch=fixed for {device.runtime}, which builds engines for one size of batch",
            "export.batch=dynamic",
            "Set device.batch and leave export.batch as it is.",
        )
