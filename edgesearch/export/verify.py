"""Does the exported network give what the trained one gives?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices import Runtime
from edgesearch.errors import ExportError
from edgesearch.export.onnx_export import INPUT_NAME


@dataclass(frozen=True)
class Tolerance:
    """How far an exported network may differ.

    Attributes:
        max_difference: Largest difference of an output value, as a share of the largest output.
        min_cosine: Smallest cosine of an image's output with the trained network's.
    """

    max_difference: float
    min_cosine: float


TOLERANCES = {
    "fp32": Tolerance(1e-3, 0.99999),
    "fp16": Tolerance(5e-2, 0.9995),
    "int8": Tolerance(0.5, 0.98),
}


@dataclass(frozen=True)
class Parity:
    """How far an exported network differs.

    Attributes:
        images: Number of images compared.
        max_difference: Largest difference of an output value, as a share of the largest output.
        min_cosine: Smallest cosine of an image's output with the trained network's.
    """

    images: int
    max_difference: float
    min_cosine: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare(expected: np.ndarray, found: np.ndarray) -> Parity:
    """Compare two outputs (N, D)."""
    expected, found = expected.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosines = (expected * found).sum(axis=1) / np.maximum(lengths, 1e-30)
    return Parity(
        images=len(expected),
        max_difference=float(np.abs(expected - found).max() / max(np.abs(expected).max(), 1e-30)),
        min_cosine=float(cosines.min()),
    )


def verify_engine(
    engine_path: Path,
    runtime: Runtime,
    images: np.ndarray,
    expected: np.ndarray,
    precision: str,
) -> Parity:
    """Run an engine on real images and compare it with the trained network.

    Args:
        engine_path: What the runtime loads; its input is called "images", its batch is fixed.
        runtime: Runs the engine.
        images: (N, C, H, W) float32, normalised; at least one batch, and a rest that fills none
            is not looked at.
        expected: (N, D), output of the trained network.
        precision: Key of `TOLERANCES`.

    Raises:
        ExportError: The difference is larger than the tolerance, or there are too few images.
        EngineError: The runtime cannot load or run the engine.
    """
    session = runtime.load(engine_path)
    try:
        batch = session.inputs[INPUT_NAME][0]
        if len(images) < batch:
            raise ExportError(
                f"at least {batch} images, which make a batch, to check {engine_path.name} on",
                f"{len(images)} images",
                "Add images, or set a smaller device.batch.",
            )
        outputs = [
            next(iter(session.run({INPUT_NAME: images[start : start + batch]}).values()))
            for start in range(0, len(images) - batch + 1, batch)
        ]
    finally:
        session.close()
    found = np.concatenate(outputs)
    parity = compare(expected[: len(found)], found)
    allowed = TOLERANCES[precision]
    if not (
        parity.max_difference <= allowed.max_difference and parity.min_cosine >= allowed.min_cosine
    ):
        raise ExportError(
            f"{engine_path.name} equal to the trained network up to {allowed.max_difference:g} of "
            f"its largest output, with cosine ≥ {allowed.min_cosine} ({precision})",
            f"a difference of {parity.max_difference:.3g} and cosine {parity.min_cosine:.6f} "
            f"on {parity.images} images",
            "Please report this with the manifest and the versions of torch, onnx and the runtime.",
        )
    return parity
