"""Checks before an export sets finished engines aside."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Sequence

from devices import DeviceSpec, TensorRTBuilder
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import ExportError
from edgesearch.evaluate.linear import require_two_classes
from edgesearch.events import Event, Report
from edgesearch.export.deployable import KNN_GLANCE, calibration_batches, parity_images
from edgesearch.export.engines import TENSORRT_RTX, TensorRTTarget
from edgesearch.search.winners import Winner


def buildable(tensorrt: TensorRTTarget | None, report: Report) -> TensorRTTarget | None:
    """The target, or None where TensorRT for RTX is not to be had; it need not be installed.

    There are wheels for Linux on x86-64 only: elsewhere engines are left out.
    """
    if tensorrt is None:
        return None
    has_wheels = platform.system() == "Linux" and platform.machine() == "x86_64"
    if has_wheels or importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        return tensorrt
    report(Event("export", "no TensorRT for RTX for this platform: its engines are left out"))
    return None


def check_target(tensorrt: TensorRTTarget | None) -> None:
    """Refuse to build engines where that cannot be done.

    Raises:
        RuntimeMissingError: TensorRT for RTX is not installed, and could be.
        CompileError: It does not know a compute capability.
    """
    if tensorrt is not None:
        TensorRTBuilder(TENSORRT_RTX, tensorrt.compute_capabilities)


def check_batch(device: DeviceSpec, batch: str) -> None:
    """Refuse an open batch for a runtime that builds engines for one size.

    Raises:
        ExportError: The batch is to be open, and the runtime compiles.
    """
    if batch == "dynamic" and device.runtime_record.compiles:
        raise ExportError(
            f"export.batch=fixed for {device.runtime}, which builds engines for one size of batch",
            "export.batch=dynamic",
            "Set device.batch and leave export.batch as it is.",
        )


def check_images(
    pool: ImagePool,
    winners: Sequence[Winner],
    batch: int,
    calibration_images: int | None,
    *,
    logits: bool,
) -> None:
    """Refuse images that winners cannot be calibrated, checked or given classes with.

    Args:
        pool: The images.
        winners: What is to be exported.
        batch: Images in each run of an engine.
        calibration_images: Images that show ranges of activations; None if no file needs them.
        logits: Classes are wanted.

    Raises:
        DataError: Labels or classes are missing, or images cannot be read.
        ExportError: There are fewer images than a batch.
    """
    if logits:
        pool.require_labels()
        require_two_classes(pool.readable_labels)
    for resolution in sorted({winner.architecture.resolution for winner in winners}):
        images = len(parity_images(pool, resolution, batch))
        if images < batch:
            raise ExportError(
                f"at least {batch} images, which make a batch, to check engines on",
                f"{images} images",
                "Add images, or set a smaller device.batch.",
            )
        if calibration_images is not None:
            calibration_batches(pool.sample(resolution, 0, calibration_images), batch)
        if pool.has_labels:  # a few of them tell accuracies, whatever is exported
            pool.labelled(resolution, KNN_GLANCE[1], KNN_GLANCE[1])
