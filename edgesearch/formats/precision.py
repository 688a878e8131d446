"""Definition of a precision: bytes per value, file, tolerance, conversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from edgesearch.formats.onnx_files import save_model

if TYPE_CHECKING:
    import onnx

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
"""How activation ranges are computed: from all values, by minimum information loss, or without
outliers."""
CALIBRATIONS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of an exported network.

    Attributes:
        max_difference: Largest difference of an output value, relative to the largest output.
        min_cosine: Smallest cosine between an image's output and the trained network's.
        max_knn_loss: Allowed loss of kNN accuracy; None if it is not judged.
    """

    max_difference: float
    min_cosine: float
    max_knn_loss: float | None = None


@dataclass(frozen=True)
class Calibration:
    """What a network is converted with: inputs (N, C, H, W), and how activations get ranges."""

    batches: Sequence[np.ndarray]
    method: CalibrationMethod = CALIBRATIONS[0]


Convert = Callable[["onnx.ModelProto", str, bool, bool, "Calibration | None"], "onnx.ModelProto"]


@dataclass(frozen=True)
class Precision:
    """A precision; all are listed in `precisions`.

    Attributes:
        name: Name in configurations.
        value_bytes: Bytes per weight or activation.
        file: Name of a winner's file, in the format of its device.
        tolerance: Tolerance of that file against the trained network.
        number_formats: Number formats that runtimes use for it, each of one precision only; see
            `RuntimeRecord.number_format`.
        convert: Converts an fp32 model, given number format, is_first, is_last and calibration; see
            `write`. None for torch's own format.
        needs_calibration: Whether `convert` needs calibration images for ranges of activations;
            others only become more exact by them.
    """

    name: str
    value_bytes: int
    file: str
    tolerance: Tolerance
    number_formats: tuple[str, ...]
    convert: Convert | None
    needs_calibration: bool = False

    @property
    def judged_by_labels(self) -> bool:
        """Whether files are also judged by kNN accuracy."""
        return self.tolerance.max_knn_loss is not None

    def write(
        self,
        onnx_path: Path,
        path: Path,
        number_format: str,
        *,
        is_first: bool = True,
        is_last: bool = True,
        calibration: Calibration | None = None,
    ) -> None:
        """Convert a network, or a block as inside a network; `convert` must not be None.

        Values between blocks have the converted type; images (`is_first`) and outputs (`is_last`)
        are fp32. Without calibration it is a file that is only measured.

        Raises:
            ExportError: It cannot be converted, or the file cannot be written.
        """
        import onnx

        assert self.convert is not None
        model = onnx.load(onnx_path)
        save_model(self.convert(model, number_format, is_first, is_last, calibration), path)
