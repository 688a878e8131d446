"""The section `export`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgesearch.formats.precisions import PRECISIONS
from edgesearch.settings import CountFromZero, Settings, fault


class TensorRTSettings(Settings):
    """TensorRT-RTX engines, built with or without a GPU."""

    compute_capabilities: Annotated[
        list[Annotated[str, Field(pattern=r"^SM\d{2,3}$")]], Field(min_length=1)
    ] = ["SM75", "SM86", "SM89", "SM120"]
    """GPU generations that one engine file serves."""
    precision: str | None = None
    """Precision of weights and activations; if null, that of the device if its runtime is TensorRT
    and its precision less than fp32, fp16 for any other."""

    @field_validator("precision")
    @classmethod
    def _supported(cls, precision: str | None, info: ValidationInfo) -> str | None:
        if precision is not None and precision not in PRECISIONS:
            raise fault(f"one of {', '.join(PRECISIONS)} is required")
        if precision == "fp32" and "SM75" in info.data.get("compute_capabilities", ()):
            raise fault("fp16 is required for SM75, which lacks fp32 matrix products")
        return precision


class ExportSettings(Settings):
    """What is made of the winners."""

    output: Literal["features", "logits", "embeddings", "stages"] = "features"
    """What the exported network returns: features before the projector, classes, embeddings behind
    the projector, or the maps of all stages for a detector or segmenter."""
    batch: Literal["fixed", "dynamic"] = "fixed"
    """Images in each run of ONNX and .ort files: device.batch, or any number."""
    quantization: Literal["minmax", "entropy", "percentile"] = "minmax"
    """How ranges of activations are chosen for int8."""
    max_replacements: CountFromZero = 5
    """Reserves that are tried for winners whose measured latency is over the budget."""
    tensorrt: TensorRTSettings | None = TensorRTSettings()
    """TensorRT-RTX engines; null builds none."""
