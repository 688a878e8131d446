"""Checks that an export can succeed, before finished engines are set aside."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Collection

from devices import DeviceSpec, TensorRTBuilder
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import ExportError
from edgesearch.evaluate.linear import require_two_classes
from edgesearch.events import Event, Report
from edgesearch.export.deployable import KNN_GLANCE, calibration_batches, parity_images
from edgesearch.export.engines import TENSORRT_RTX, TensorRTTarget


def buildable(tensorrt: TensorRTTarget | None, report: Report) -> TensorRTTarget | None:
    """The target; None, with a report, on platforms without wheels of TensorRT for RTX.

    There are wheels for Linux on x86-64 only. TensorRT for RTX need not be installed.
    """
    if tensorrt is None:
        return None
    has_wheels = platform.system() == "Linux" and platform.machine() == "x86_64"
    if has_wheels or importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        return tensorrt
    report(
        Event(
            "export", "TensorRT for RTX does not support this platform: no engines are built for it"
        )
    )
    return None


def check_target(tensorrt: TensorRTTarget | None) -> None:
    """Check that engines for the target can be built.

    Raises:
        RuntimeMissingError: TensorRT for RTX is not installed.
        CompileError: It does not know a compute capability.
    """
    if tensorrt is not None:
        TensorRTBuilder(TENSORRT_RTX, tensorrt.compute_capabilities)


def check_batch(device: DeviceSpec, batch: str) -> None:
    """Refuse a dynamic batch for a runtime that compiles engines for a fixed batch size.

    Raises:
        ExportError: The batch is dynamic, and the runtime compiles.
    """
    if batch == "dynamic" and device.runtime_record.compiles:
        raise ExportError(
            f"export.batch=fixed for {device.runtime}, which compiles a fixed batch size",
            "export.batch=dynamic",
            "Set device.batch and leave export.batch as it is.",
        )


def check_images(
    pool: ImagePool,
    resolutions: Collection[int],
    batch: int,
    calibration_images: int | None,
    *,
    logits: bool,
) -> None:
    """Check that there are enough images and labels to export networks of these resolutions.

    Raises:
        DataError: Labels or classes are missing, or images cannot be read.
        ExportError: There are fewer images than a batch.
    """
    if logits:
        pool.require_labels()
        require_two_classes(pool.readable_labels)
    for resolution in sorted(resolutions):
        images = len(parity_images(pool, resolution, batch))
        if images < batch:
            raise ExportError(
                f"at least {batch} images (one batch) to verify engines on",
                f"{images} images",
                "Add images, or set a smaller device.batch.",
            )
        if calibration_images is not None:
            calibration_batches(pool.sample(resolution, 0, calibration_images), batch)
        if pool.has_labels:  # kNN accuracies use a few in any case
            pool.labelled(resolution, KNN_GLANCE[1], KNN_GLANCE[1])
