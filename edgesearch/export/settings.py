"""The section `export`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgesearch.formats.precision import CALIBRATIONS, CalibrationMethod
from edgesearch.formats.precisions import PRECISIONS
from edgesearch.settings import AppliesTo, CountFromZero, Fraction, Settings, fault


class TensorRTSettings(Settings):
    """TensorRT-RTX engines; building needs no GPU."""

    compute_capabilities: Annotated[
        list[Annotated[str, Field(pattern=r"^SM\d{2,3}$")]], Field(min_length=1)
    ] = ["SM75", "SM86", "SM89", "SM120"]
    """GPU generations that one engine file supports."""
    precision: str | None = None
    """Precision of weights and activations; if null, the device's if it runs TensorRT below fp32,
    otherwise fp16."""

    @field_validator("precision")
    @classmethod
    def _supported(cls, precision: str | None, info: ValidationInfo) -> str | None:
        if precision is not None and precision not in PRECISIONS:
            raise fault(f"one of {', '.join(PRECISIONS)} is required")
        if precision == "fp32" and "SM75" in info.data.get("compute_capabilities", ()):
            raise fault("fp16 is required for SM75, which lacks fp32 matrix products")
        return precision


def _makes_int8(config: Any) -> bool:
    tensorrt = config.export.tensorrt
    return "int8" in (config.device.build().precision, tensorrt and tensorrt.precision)


def _may_replace(config: Any) -> bool:
    budgets = config.search.budgets
    bounds = (budgets.latency_ms, budgets.latency_of_largest, budgets.latency_p95_ms)
    return config.search.reserves > 0 and any(bound is not None for bound in bounds)


class ExportSettings(Settings):
    """How the winners are exported."""

    output: Literal["features", "logits", "embeddings", "stages"] = "features"
    """Output of the exported network: features before the projector, class logits, embeddings after
    the projector, or the maps of all stages for a detector or segmenter."""
    batch: Literal["fixed", "dynamic"] = "fixed"
    """Batch size of ONNX and .ort files: device.batch, or any."""
    quantization: Annotated[
        CalibrationMethod,
        AppliesTo("device.precision or export.tensorrt.precision is int8", _makes_int8),
    ] = CALIBRATIONS[0]
    """How int8 ranges of activations are computed."""
    max_replacements: Annotated[
        CountFromZero,
        AppliesTo("search.reserves is above 0 and search.budgets bounds a latency", _may_replace),
    ] = 5
    """Reserves to try for winners whose measured latency exceeds the budget."""
    max_task_loss: Annotated[
        Fraction, AppliesTo("finetune.task is given", lambda c: c.finetune.task is not None)
    ] = 0.02
    """Largest loss of the task's metric by conversion, as of int8; more is refused."""
    tensorrt: TensorRTSettings | None = TensorRTSettings()
    """TensorRT-RTX engines; null builds none."""
