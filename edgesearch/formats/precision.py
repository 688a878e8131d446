"""What a precision means: the bytes of a value, its files, how they are made and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesearch.formats.onnx_files import save_model

if TYPE_CHECKING:
    import onnx

CALIBRATIONS = ("minmax", "entropy", "percentile")
"""How ranges of activations are chosen: all values, those that keep most information, or all but
the few that are farthest out."""


@dataclass(frozen=True)
class Tolerance:
    """How far an exported network may differ.

    Attributes:
        max_difference: Largest difference of an output value, as a share of the largest output.
        min_cosine: Smallest cosine of an image's output with the trained network's.
        max_knn_loss: Accuracy of nearest neighbours that may be lost; None if it does not judge.
    """

    max_difference: float
    min_cosine: float
    max_knn_loss: float | None = None


@dataclass(frozen=True)
class Calibration:
    """What shows the ranges of activations.

    Attributes:
        batches: Arrays of the shape of the network's input.
        method: One of `CALIBRATIONS`.
    """

    batches: Sequence[np.ndarray]
    method: str = "minmax"


Convert = Callable[["onnx.ModelProto", str, bool, bool, "Calibration | None"], "onnx.ModelProto"]


@dataclass(frozen=True)
class Precision:
    """A precision; all of them are listed in `precisions`.

    Attributes:
        name: What a configuration calls it.
        value_bytes: Bytes of a weight or activation.
        file: Name of a winner's file in this precision, in the format that its device wants.
        tolerance: How far that file may differ from the trained network.
        number_formats: What runtimes may want of it; see `RuntimeRecord.number_format`. Their names
            are those of no other precision.
        convert: Of a model in single precision, a number format, whether it takes the network's
            images, whether it gives the network's outputs, and a calibration, makes the model in
            this precision; None if that is what torch exports. See `write`.
        needs_calibration: Networks are converted with calibration images.
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
        """Whether the accuracy of nearest neighbours decides on its files, too."""
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
        """Convert a network, or a block as it is inside of a network; `convert` must not be None.

        What passes from block to block has the type that it has there; images and outputs are in
        single precision.

        Args:
            onnx_path: In single precision, with one input.
            path: Gets the converted file, atomically.
            number_format: One of `number_formats`.
            is_first: It takes images.
            is_last: It gives the network's outputs.
            calibration: Shows ranges of activations; None takes random inputs, for files that are
                only measured.

        Raises:
            ExportError: It cannot be converted, or the file cannot be written.
        """
        import onnx

        assert self.convert is not None
        model = onnx.load(onnx_path)
        save_model(self.convert(model, number_format, is_first, is_last, calibration), path)

    def file_for(self, number_format: str, measured_format: str, runtime: str) -> str:
        """Name of the file that a runtime's engines are built from.

        Args:
            number_format: What the runtime wants.
            measured_format: What the winner's device wants, perhaps of another precision.
            runtime: For the name of a file beside the measured one.
        """
        if len(self.number_formats) == 1 or number_format == measured_format:
            return self.file
        return f"subnet.{self.name}-{runtime}.onnx"
