"""The sections `search` and `search.budgets`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from devices.spec import DeviceSpec
from edgesearch.errors import UserError
from edgesearch.latency.settings import MeasuredSettings, make_device
from edgesearch.settings import (
    CALIBRATION,
    FORM,
    SCORE,
    AppliesTo,
    Batch,
    Count,
    CountFromZero,
    Positive,
    PositiveFraction,
    Settings,
    fault,
)


class Range(Settings):
    """A range of allowed values."""

    min: Positive | None = None
    """Minimum; unbounded if null."""
    max: Positive | None = None
    """Maximum; unbounded if null."""

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends as numbers, infinite if open."""
        low = -math.inf if self.min is None else self.min
        return low, math.inf if self.max is None else self.max

    @model_validator(mode="after")
    def _holds_something(self) -> Range:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fault("a min that is at most max is required", f"{self.min:g} to {self.max:g}")
        return self


def _form(value: Any) -> str:
    """The form of a budget; faults are reported for this form only."""
    if isinstance(value, list | tuple):
        return f"{FORM}list"
    return f"{FORM}range" if isinstance(value, dict | Range) else f"{FORM}number"


def _one_of(words: str) -> Discriminator:
    """Distinguishes the forms; `words` describe the allowed ones."""
    return Discriminator(_form, custom_error_type="form", custom_error_message=f"must be {words}")


_Range = Annotated[Range, Tag(f"{FORM}range")]
_Number = Annotated[Positive, Tag(f"{FORM}number")]
_Share = Annotated[PositiveFraction, Tag(f"{FORM}number")]
_Several = Field(strict=False, min_length=1)
_Numbers = Annotated[tuple[Positive, ...], _Several, Tag(f"{FORM}list")]
_Shares = Annotated[tuple[PositiveFraction, ...], _Several, Tag(f"{FORM}list")]

Bound = Annotated[_Number | _Range, _one_of("a number, or a section of min and max")]
"""A number is an upper bound; a section has min and max."""
Bounds = Annotated[_Number | _Range | _Numbers, Discriminator(_form)]
"""A list is several separate upper bounds."""
Shares = Annotated[_Share | _Shares, _one_of("a share, or a list of them")]


_NOUNS = {
    "latency_ms": ("latency", "ms"),
    "latency_p95_ms": ("95th percentile", "ms"),
    "params": ("parameters", ""),
    "macs": ("MACs", ""),
    "activation_bytes": ("activations", "bytes"),
    "weight_bytes": ("weights", "bytes"),
}


def _bound_words(name: str, bound: Range) -> str:
    *device, figure = name.removeprefix("devices.").rsplit(".", 1)
    noun, unit = _NOUNS[figure]

    def shown(value: float) -> str:
        in_ms = f"{value:.3f}" if 1e-3 <= value < 1e5 else f"{value:.3g}"
        return (f"{in_ms} {unit}" if unit == "ms" else f"{value:,.0f} {unit}").rstrip()

    low = "" if bound.min is None else f"{shown(bound.min)} ≤ "
    high = "" if bound.max is None else f" ≤ {shown(bound.max)}"
    return f"{low}{' on '.join([noun, *device])}{high}"


class DeviceBudgets(MeasuredSettings):
    """Budgets on a further device, whose latency table is in the same output_dir."""

    latency_ms: Bound | None = None
    """Median latency, in milliseconds."""
    latency_p95_ms: Bound | None = None
    """95th percentile of the latency, in milliseconds."""

    def build(self, name: str) -> DeviceSpec:
        """The device; its transport does not matter, since only its table is read.

        Raises:
            UnknownDeviceError: There is no such device, or a field is not valid.
        """
        fields = self.model_dump(exclude_none=True, include=set(MeasuredSettings.model_fields))
        return make_device(name, **fields, transport="local")


class Budgets(Settings):
    """Budgets that candidates must meet together; null means unbounded."""

    exclusive = (("latency_ms", "latency_of_largest"),)

    latency_ms: Bounds | None = None
    """Median latency on the device, in milliseconds, with `finetune.task` of the whole model; a
    list gives separate winners per budget."""
    latency_of_largest: Shares | None = None
    """Median latency as a share of the largest network's predicted latency."""
    latency_p95_ms: Bound | None = None
    """95th percentile of the latency on the device, in milliseconds."""
    params: Bound | None = None
    """Learnable parameters."""
    macs: Bound | None = None
    """Multiply-accumulates per image."""
    activation_bytes: Bound | None = None
    """Peak size of live activations, in the device's precision."""
    weight_bytes: Bound | None = None
    """Size of the parameters in the device's precision."""
    devices: dict[str, DeviceBudgets] = {}
    """Budgets on further devices, by name."""

    def each(self) -> tuple[Budgets, ...]:
        """One for each latency budget, in their order."""
        if not isinstance(self.latency_ms, tuple):
            return (self,)
        return tuple(
            self.model_copy(update={"latency_ms": most}) for most in dict.fromkeys(self.latency_ms)
        )

    def with_largest(self, largest_ms: float) -> Budgets:
        """Replace the share of the largest network's latency by milliseconds."""
        share = self.latency_of_largest
        if share is None:
            return self
        most = (
            tuple(each * largest_ms for each in share)
            if isinstance(share, tuple)
            else share * largest_ms
        )
        return self.model_copy(update={"latency_ms": most, "latency_of_largest": None})

    def ranges(self) -> dict[str, Range]:
        """Bounds by key path below `search.budgets`; not for a list."""
        apart = ("devices", "latency_of_largest")
        bounds = {name: getattr(self, name) for name in Budgets.model_fields if name not in apart}
        for device, latency in self.devices.items():
            for name in ("latency_ms", "latency_p95_ms"):
                bounds[f"devices.{device}.{name}"] = getattr(latency, name)
        ranges = {
            name: bound if isinstance(bound, Range) else Range(max=bound)
            for name, bound in bounds.items()
            if bound is not None
        }
        return {name: bound for name, bound in ranges.items() if bound != Range()}

    def without_latency(self) -> Budgets:
        """The budgets that can be checked without a latency table."""
        names = ("params", "macs", "activation_bytes", "weight_bytes")
        return Budgets(**{name: getattr(self, name) for name in names})

    def words(self) -> list[str]:
        """Each bound in words, such as "latency ≤ 0.190 ms"."""
        bounds = [part.ranges() for part in self.each()]
        several = [f"{part['latency_ms'].ends[1]:.3f}" for part in bounds if len(bounds) > 1]
        words = [_bound_words(name, bound) for name, bound in bounds[0].items()]
        if several:
            words[0] = f"latency ≤ {' or '.join(several)} ms, separate budgets"
        return words

    def further_devices(self) -> dict[str, DeviceSpec]:
        """The further devices by name."""
        return {name: budgets.build(name) for name, budgets in self.devices.items()}

    @field_validator("devices")
    @classmethod
    def _known(cls, devices: dict[str, DeviceBudgets]) -> dict[str, DeviceBudgets]:
        for name, budgets in devices.items():
            try:
                budgets.build(name)
            except UserError as error:
                raise fault(error.required, error.found, error.remedy) from error
        return devices


FOREIGN = ("init", "teacher")
"""References that are no networks of the supernet."""


class SearchSettings(Settings):
    """How subnets are searched."""

    strategy: Literal["surrogate", "evolution", "tpe", "random", "exhaustive"] = "surrogate"
    """Search strategy."""
    evaluations: Count = 200
    """Number of candidates to score."""
    population: Annotated[
        Annotated[int, Field(ge=2)] | None,
        AppliesTo("search.strategy is evolution", lambda c: c.search.strategy == "evolution"),
    ] = None
    """Population of the evolution, at most a quarter of the evaluations; automatic if null."""
    budgets: Budgets = Budgets()
    """Budgets that candidates must meet."""
    task: Annotated[Literal["classification", "detection", "segmentation"], SCORE] = (
        "classification"
    )
    """Task: scores compare whole images for classification, otherwise places in images."""
    reference: Annotated[
        Literal["key", "largest", "init", "teacher"],
        SCORE,
        AppliesTo("search.score compares networks", lambda c: c.search.score != "labels"),
    ] = "key"
    """Reference network: the key encoder, the largest subnet, the public weights of `pretrain.init`
    as they are (init), or the teacher of `pretrain.teacher`."""
    score: Annotated[Literal["cosine", "relation", "cka", "regression", "labels"], SCORE] = Field(
        default=None, validate_default=True
    )
    """How a candidate is scored: cosine of embeddings with the reference's (for places: of the rows
    of their self-similarity), relation (correlation of similarities), cka (centred kernel
    alignment), regression (how well a linear layer predicts the reference's features), or labels
    (nearest neighbours among labelled training images). By default cosine;
    regression for the references init and teacher, whose embeddings have other lengths."""
    label_images: Annotated[
        Annotated[int, Field(ge=4)] | None,
        SCORE,
        AppliesTo("search.score is labels", lambda c: c.search.score == "labels"),
    ] = None
    """Labelled training images that score candidates; null for all, up to search.images."""
    stages: Annotated[Annotated[list[Count], Field(min_length=1)] | None, SCORE] = None
    """Stages whose maps are compared, for detection and segmentation; the last one if null."""
    images: Annotated[Count, SCORE] = 1024
    """Maximum images for scoring; fewer if they distinguish the candidates."""
    calibration_images: Annotated[Batch, SCORE, CALIBRATION] = 1024
    """Images for recalibrating batch normalisation of each candidate."""
    batch_size: Annotated[Batch, SCORE, CALIBRATION] = 128
    """Images per forward pass."""
    candidates_at_once: Count = 8
    """Candidates per proposal of the strategy, for any number of processes."""
    winners: Count = 1
    """Winners to export, per latency budget."""
    reserves: CountFromZero = 10
    """Candidates next in rank, per latency budget, that replace winners measured as too slow."""

    @property
    def foreign_reference(self) -> str | None:
        """The reference that is used, if it is none of the supernet's own networks."""
        used = self.score != "labels" and self.reference in FOREIGN
        return self.reference if used else None

    @field_validator("reference")
    @classmethod
    def _has_maps(cls, reference: str, info: ValidationInfo) -> str:
        task = info.data.get("task", "classification")
        if reference == "teacher" and task != "classification":
            raise fault(f"key, largest or init is required for the task {task}")
        return reference

    @field_validator("score", mode="before")
    @classmethod
    def _of_the_reference(cls, score: Any, info: ValidationInfo) -> Any:
        reference, task = info.data.get("reference"), info.data.get("task", "classification")
        foreign = reference in FOREIGN and task == "classification"
        if score is None:
            return "regression" if foreign else "cosine"
        if score == "cosine" and foreign:
            raise fault(
                "relation, cka, regression or labels is required for the reference "
                f"{reference}, whose embeddings may have another length"
            )
        if score in ("labels", "regression") and task != "classification":
            raise fault(f"cosine, relation or cka is required for the task {task}")
        return score

    @field_validator("stages")
    @classmethod
    def _of_places(cls, stages: list[int] | None, info: ValidationInfo) -> list[int] | None:
        if stages is not None and info.data.get("task") == "classification":
            raise fault("null is required for the task classification, which compares no maps")
        return stages

    @field_validator("population")
    @classmethod
    def _quarter(cls, population: int | None, info: ValidationInfo) -> int | None:
        evaluations = info.data.get("evaluations")
        if population is not None and evaluations is not None and 4 * population > evaluations:
            raise fault(f"a quarter of search.evaluations ({evaluations}) at most is required")
        return population
