"""A winner as the network that is deployed, and its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devices import DeviceSpec, TensorRTRtxBuilder
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import ExportError
from edgesearch.evaluate.features import compute_features
from edgesearch.evaluate.linear import fit_linear
from edgesearch.export.engines import (
    FP16_FILE,
    INT8_FILE,
    MEASURED_FILES,
    ONNX_FILE,
    TENSORRT_INT8_FILE,
    WEIGHTS_FILE,
    TensorRTTarget,
    build_engines,
    save_weights,
)
from edgesearch.export.exported import unjudged
from edgesearch.export.kit import KIT, write_kit
from edgesearch.export.manifest import make_manifest, write_manifest
from edgesearch.export.verify import KnnImages
from edgesearch.formats.precision import convert_to_fp16, number_format
from edgesearch.formats.quantize import quantize_network
from edgesearch.latency.table import table_digest
from edgesearch.search.winners import Winner
from edgesearch.space import Architecture, SearchSpace
from edgesearch.stages.search import SearchImages
from edgesearch.supernet.calibrate import recalibrate
from edgesearch.supernet.subnet import Subnet
from edgesearch.supernet.weights import SupernetWeights
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


def is_in_int8(device: DeviceSpec, tensorrt: TensorRTTarget | None) -> bool:
    """Whether any of a winner's files is in eight bits."""
    return "int8" in (device.precision, None if tensorrt is None else tensorrt.precision)


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
        number_format: One of `edgesearch.formats.precision.NUMBER_FORMATS`.
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


def write_for_tensorrt(
    folder: Path, device: DeviceSpec, calibration: torch.Tensor, quantization: str
) -> str:
    """See to it that a folder holds the network in eight bits as TensorRT reads them.

    Args:
        folder: Holds the network in single precision, and what is measured on the device.
        device: Where it is measured; if in such eight bits, that file is the one.
        calibration: (N, C, H, W), normalised: shows the ranges of activations.
        quantization: How they are chosen: one of `CALIBRATIONS`.

    Returns:
        The file's name.

    Raises:
        ExportError: The network cannot be quantized, or the file cannot be written.
    """
    wanted = number_format("int8", runtime="tensorrt-rtx")
    measured = number_format(device.precision, runtime=device.runtime, provider=device.provider)
    if measured == wanted:
        return INT8_FILE
    batches, path = calibration_batches(calibration, device.batch), folder / TENSORRT_INT8_FILE
    quantize_network(folder / ONNX_FILE, path, wanted, batches, quantization)
    return path.name


def parity_images(pool: ImagePool, resolution: int, batch: int) -> torch.Tensor:
    """Images (N, C, R, R), normalised, that engines are checked on: a batch of them at least."""
    return pool.sample(resolution, 0, max(PARITY_IMAGES, batch))


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
    calibration: torch.Tensor,
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
    glance = min(KNN_IMAGES, max(int(KNN_GLANCE[0] / winner.macs), KNN_GLANCE[1]))
    knn_images = KNN_IMAGES if is_in_int8(device, tensorrt) else glance
    for_tensorrt = TENSORRT_INT8_FILE
    if tensorrt is not None and tensorrt.precision == "int8":
        for_tensorrt = write_for_tensorrt(folder, device, calibration, form["quantization"])
    files: dict[str, dict[str, Any]] = build_engines(
        folder,
        deployable.network,
        parity_images(pool, deployable.resolution, device.batch),
        tensorrt,
        device.precision,
        for_tensorrt,
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
    return unjudged(files)


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
