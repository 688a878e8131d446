"""Extracts a winner from the supernet; writes its files and its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devices import DeviceSpec
from devices.runtimes.known_runtimes import RUNTIMES
from devices.runtimes.open_runtime import open_runtime
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import ExportError
from edgesearch.evaluate.features import compute_features
from edgesearch.evaluate.linear import fit_linear
from edgesearch.export.engines import (
    ONNX_FILE,
    TENSORRT_RTX,
    WEIGHTS_FILE,
    TensorRTTarget,
    build_engines,
    save_weights,
    with_post_processing,
)
from edgesearch.export.kit import KIT, least_versions, write_kit
from edgesearch.export.manifest import make_manifest, notes_on, write_manifest
from edgesearch.export.post_processing import time_post_processing
from edgesearch.export.verify import KnnImages, TaskImages
from edgesearch.formats.precision import CALIBRATIONS, Calibration, CalibrationMethod, Precision
from edgesearch.formats.precisions import PRECISIONS, precision_of, precision_with
from edgesearch.search.winners import Winner
from edgesearch.space import Architecture, SearchSpace
from edgesearch.supernet.calibrate import recalibrate
from edgesearch.supernet.subnet import Subnet
from edgesearch.supernet.weights import SupernetWeights
from edgesearch.tasks.finetuning import Finetuning
from edgesearch.tasks.model import TaskModel
from profilers import LatencyTable

PARITY_IMAGES = 64
QUANTIZATION_IMAGES = 256
KNN_IMAGES = 512
"""Training images, and as many test images, for a precision judged by kNN accuracy."""
KNN_GLANCE = (1e11, 64)
"""For other precisions: multiply-accumulates per set of images, which bound the time, and the
minimum number of images."""


@dataclass(frozen=True)
class Deployable:
    """A recalibrated subnet, with a classifier if logits are exported.

    Attributes:
        network: In evaluation mode; maps images to the exported output.
        calibration: Number and hash of the images for normalisation statistics and int8 ranges.
        classifier: Accuracy of the logits (0 … 1) and number of held-out images; None without.
    """

    network: Subnet | TaskModel
    resolution: int
    metadata: dict[str, str]
    calibration: dict[str, Any]
    classifier: dict[str, Any] | None = None
    task: TaskImages | None = None

    def parity_images(self, pool: ImagePool, batch: int) -> torch.Tensor:
        """Images (N, C, R, R), normalised as the network needs them, to verify engines on."""
        if self.task is None:
            return parity_images(pool, self.resolution, batch)
        return self.task.prepare(self.task.images[: max(PARITY_IMAGES, batch)])

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs; for stages one each, such as "layer1"."""
        if isinstance(self.network, TaskModel):
            return self.network.output_names
        output = self.network.output
        return list(self.network.stage_names) if output == "stages" else [output]


def make_deployable(
    space: SearchSpace,
    weights: SupernetWeights,
    pool: ImagePool,
    architecture: Architecture,
    output: str,
    *,
    calibration_images: int,
    batch_size: int,
) -> Deployable:
    """Extract a subnet from the supernet for one of `OUTPUTS`, calibrated as in the search.

    Raises:
        DataError: Logits are requested, but the images have no labels.
    """
    resolution = architecture.resolution
    subnet = weights.subnet(architecture)
    if output == "embeddings":
        network = Subnet(subnet, output, projector=weights.projector(architecture))
    else:
        network = Subnet(subnet, "stages" if output == "stages" else "features")
    network = network.to(memory_format=torch.channels_last).eval()
    calibration = pool.sample(resolution, 0, calibration_images)
    recalibrate(network, calibration, batch_size)
    right = None
    if output == "logits":
        images = pool.labelled(resolution)
        features = compute_features(network, images.train, prepare=images.prepare)
        classifier = fit_linear(features, images.train_labels, len(pool.class_names))
        network.fc, network.output = classifier, output
        found = compute_features(network, images.test, prepare=images.prepare).argmax(dim=1)
        accuracy = float((found == images.test_labels).double().mean())
        right = {"accuracy": accuracy, "images": len(found)}
    metadata = {
        "space": space.name,
        "architecture": json.dumps(dict(architecture)),
        "preprocess": json.dumps(pool.preprocess(resolution).to_dict()),
        "classes": json.dumps(list(pool.class_names)),
        "output": output,
    }
    if weights.origin is not None:
        origin = {"source": weights.origin.source, "licence": weights.origin.licence}
        metadata["initial_weights"] = json.dumps(origin)
    digest = hashlib.sha256()
    for image in calibration:
        digest.update(image.contiguous().numpy().tobytes())
    about = {"images": len(calibration), "sha256_of_pixels": digest.hexdigest()}
    return Deployable(network, resolution, metadata, {**about, "image_set": pool.digest}, right)


def make_whole_deployable(
    finetuning: Finetuning, model: TaskModel, architecture: Architecture, max_loss: float
) -> Deployable:
    """A whole network that was trained for a task, with its test images.

    Args:
        finetuning: The task.
        model: The trained network.
        architecture: Of its backbone.
        max_loss: Allowed loss of the task's metric by conversion.
    """
    record, resolution = finetuning.record, model.resolution
    task, fitted = finetuning.task(resolution), finetuning.fitted("test", resolution)
    model = model.to("cpu").to(memory_format=torch.channels_last).eval()
    metadata = {
        "space": finetuning.space.name,
        "architecture": json.dumps(dict(architecture)),
        "preprocess": json.dumps(task.preprocess.to_dict()),
        "classes": json.dumps(list(finetuning.classes)),
        "output": "logits" if record.name == "classification" else record.name,
        "head": finetuning.settings.head,
    }
    calibration = finetuning.calibration(resolution)
    digest = hashlib.sha256(calibration.contiguous().numpy().tobytes()).hexdigest()
    about = {"images": len(calibration), "sha256_of_pixels": digest}
    images = TaskImages(
        record.metric,
        fitted.images,
        task.preprocess.normalise,
        task.predictions,
        lambda found: task.figures(found, fitted.targets[: len(found)])[record.metric],
        max_loss,
        record.post_processing(),
    )
    pool = finetuning.pool
    return Deployable(model, resolution, metadata, {**about, "image_set": pool.digest}, task=images)


def _precisions(device: DeviceSpec, tensorrt: TensorRTTarget | None) -> list[Precision]:
    """Precisions of a winner's files beside fp32."""
    return [precision_of(device)] + ([] if tensorrt is None else [PRECISIONS[tensorrt.precision]])


def is_in_int8(device: DeviceSpec, tensorrt: TensorRTTarget | None) -> bool:
    """Whether ranges of activations are computed for any of a winner's files."""
    return any(precision.needs_calibration for precision in _precisions(device, tensorrt))


def is_converted(device: DeviceSpec, tensorrt: TensorRTTarget | None) -> bool:
    """Whether any of a winner's files is converted, which takes calibration images."""
    return any(precision.convert is not None for precision in _precisions(device, tensorrt))


def calibration_batches(calibration: torch.Tensor, batch: int) -> list[np.ndarray]:
    """Batches of calibration images (N, C, H, W), each (batch, C, H, W).

    Raises:
        ExportError: There are fewer images than a batch.
    """
    images = np.ascontiguousarray(calibration[:QUANTIZATION_IMAGES].contiguous().numpy())
    batches = [images[i : i + batch] for i in range(0, len(images) - batch + 1, batch)]
    if not batches:
        raise ExportError(
            f"at least {batch} images (one batch) to convert the network with",
            f"{len(images)}",
            "Raise search.calibration_images, or set a smaller device.batch.",
        )
    return batches


def write_in_format(
    folder: Path,
    number_format: str,
    calibration: torch.Tensor,
    batch: int,
    quantization: CalibrationMethod = CALIBRATIONS[0],
    name: str | None = None,
) -> Path:
    """Convert the fp32 network in a folder to the number format of a runtime.

    `calibration` (N, C, H, W), normalised, determines ranges of activations by `quantization`, one
    of `CALIBRATIONS`, and biases. `name` replaces the file name of the precision.

    Returns:
        The converted file; the fp32 file if that is the format.

    Raises:
        ExportError: The network cannot be converted, or the file cannot be written.
    """
    precision = precision_with(number_format)
    path = folder / (name or precision.file)
    if precision.convert is not None:
        images = Calibration(calibration_batches(calibration, batch), quantization)
        precision.write(folder / ONNX_FILE, path, number_format, calibration=images)
    return path


def write_for_tensorrt(
    folder: Path,
    device: DeviceSpec,
    precision: Precision,
    calibration: torch.Tensor,
    quantization: CalibrationMethod = CALIBRATIONS[0],
) -> str:
    """Ensure that a folder has the ONNX file for TensorRT engines of a precision; returns its name.

    If the device uses the same number format, its file serves. See `write_in_format`.

    Raises:
        ExportError: The network cannot be converted, or the file cannot be written.
    """
    wanted, measured = RUNTIMES[TENSORRT_RTX].number_format(precision.name), device.number_format()
    shared = wanted == measured or len(precision.number_formats) == 1
    name = precision.file if shared else f"subnet.{precision.name}-tensorrt.onnx"
    if wanted != measured:
        write_in_format(folder, wanted, calibration, device.batch, quantization, name)
    return name


def parity_images(pool: ImagePool, resolution: int, batch: int) -> torch.Tensor:
    """Images (N, C, R, R), normalised, to verify engines on; at least one batch."""
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
    table_digest: str,
    tensorrt: TensorRTTarget | None,
    form: Mapping[str, Any],
    calibration: torch.Tensor,
) -> tuple[str, ...]:
    """Build a winner's engines from the ONNX file in its folder, verify them, write the manifest.

    Args as in `write_in_format`; `form` has further entries of the manifest, including
    `quantization` and `knn_neighbours`.

    Returns:
        Notes on files that are left out or could not be judged by kNN accuracy.

    Raises:
        DifferenceError: A file for the device differs from the subnet.
        CompileError: A runtime could not compile the network.
    """
    precision = precision_of(device)
    glance = min(KNN_IMAGES, max(int(KNN_GLANCE[0] / winner.macs), KNN_GLANCE[1]))
    judged = any(each.judged_by_labels for each in _precisions(device, tensorrt))
    count = KNN_IMAGES if judged else glance
    source = ONNX_FILE
    if tensorrt is not None:
        source = write_for_tensorrt(
            folder, device, PRECISIONS[tensorrt.precision], calibration, form["quantization"]
        )
    in_graph = None
    if deployable.task is not None and device.runtime_record.suppresses_boxes(device.provider):
        in_graph = deployable.task.in_graph
    images = deployable.parity_images(pool, device.batch)
    engines = build_engines(
        folder,
        deployable.network,
        images,
        tensorrt,
        precision,
        source,
        logits=deployable.metadata["output"] == "logits",
        batch=device.batch,
        knn=None
        if deployable.task
        else _knn_images(pool, deployable.resolution, count, form["knn_neighbours"]),
        knn_glance=glance,
        task=deployable.task,
        post_processing=in_graph is not None,
    )
    files = engines.files
    definition = {"space_definition": json.dumps(space.to_dict())}
    save_weights(deployable.network, folder / WEIGHTS_FILE, {**deployable.metadata, **definition})
    files[WEIGHTS_FILE] = {"about": "weights of the subnet, for PyTorch"}
    engine = _kit_engine(files, device)
    post_processing: dict[str, Any] | None = None
    if deployable.task is not None and deployable.task.in_graph is not None:
        post_processing = {"in": "kit", "time": None}
    if in_graph is not None:
        measured, engine = engine, with_post_processing(engine, in_graph)
        found = None
        if device.transport == "local":
            pixels = images.contiguous().numpy()
            paths = folder / measured, folder / engine
            found = time_post_processing(open_runtime(device), *paths, pixels)
        post_processing = {"in": "graph", "time": None if found is None else asdict(found)}
    facts = {
        "winner": winner.to_dict(),
        "space": space.to_dict(),
        "space_hash": space.space_hash,
        "device": device.to_dict(),
        **_measured_with(table),
        "table": {"file": table.name, "sha256_of_measurements": table_digest},
        "input": {
            "name": "images",
            "shape": [device.batch, space.in_channels, *[deployable.resolution] * 2],
        },
        "measured_file": precision.file,
        "kit_file": engine,
        "post_processing": post_processing,
        "left_out": engines.left_out,
        "least_versions": least_versions(device),
        **{name: json.loads(deployable.metadata[name]) for name in ("preprocess", "classes")},
        "output": deployable.metadata["output"],
        "output_names": deployable.output_names,
        **form,
        "calibration": deployable.calibration,
        "classifier": deployable.classifier,
        "licence_of_data": pool.licence,
        "initial_weights": json.loads(deployable.metadata.get("initial_weights", "null")),
    }
    write_kit(folder, engine, make_manifest(folder, files, facts))
    files[KIT] = {"about": f"{engine} with a program that runs it on the device"}
    write_manifest(folder, files, facts)
    return notes_on({**facts, "files": files})


def _knn_images(pool: ImagePool, resolution: int, count: int, neighbours: int) -> KnnImages | None:
    """Labeled images for kNN accuracy; None without labels."""
    if not pool.has_labels:
        return None
    images = pool.labelled(resolution, count, count)
    labels = (images.train_labels, images.test_labels)
    return KnnImages(images.train, labels[0], images.test, labels[1], images.prepare, neighbours)


def _measured_with(table: Path) -> dict[str, Any]:
    """Runtime and fingerprint of the table's last session, which measured the winner."""
    loaded = LatencyTable.load(table)
    found = dict(loaded.sessions[-1].fingerprint) or loaded.fingerprint.to_dict()
    runtime = {"name": found["runtime"], "version": found["runtime_version"]}
    return {"runtime": {**runtime, "driver": found.get("driver")}, "fingerprint": found}


def _kit_engine(files: Collection[str], device: DeviceSpec) -> str:
    """The file for the device: the compiled one if it runs on every device of this type."""
    compiled = f"subnet.{device.precision}{device.runtime_record.carried}"
    return compiled if compiled in files else precision_of(device).file
