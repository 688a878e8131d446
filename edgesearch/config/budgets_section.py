"""The section `search.budgets`: what is bounded."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from devices.spec import DeviceSpec, load_device
from edgesearch.errors import UserError
from edgesearch.formats.precisions import precision_of
from edgesearch.settings import FORM, Positive, PositiveFraction, Settings, fault


class RangeSection(Settings):
    """Both ends of what is allowed."""

    min: Positive | None = None
    """The least; no bound if null."""
    max: Positive | None = None
    """The most; no bound if null."""

    @model_validator(mode="after")
    def _holds_something(self) -> RangeSection:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fault("a min that is at most max is required", f"{self.min:g} to {self.max:g}")
        return self


def _form(value: Any) -> str:
    """Which form a budget has; so faults are told of that form only."""
    if isinstance(value, list):
        return f"{FORM}list"
    return f"{FORM}range" if isinstance(value, dict | RangeSection) else f"{FORM}number"


def _one_of(words: str) -> Discriminator:
    """Tells the forms apart; the fault of any other is put in these words."""
    return Discriminator(_form, custom_error_type="form", custom_error_message=f"must be {words}")


_Range = Annotated[RangeSection, Tag(f"{FORM}range")]
_Number = Annotated[Positive, Tag(f"{FORM}number")]
_Share = Annotated[PositiveFraction, Tag(f"{FORM}number")]
_Numbers = Annotated[list[Positive], Field(min_length=1), Tag(f"{FORM}list")]
_Shares = Annotated[list[PositiveFraction], Field(min_length=1), Tag(f"{FORM}list")]

Bound = Annotated[_Number | _Range, _one_of("a number, or a section of min and max")]
"""A number is an upper bound; a section has min and max."""
Bounds = Annotated[_Number | _Range | _Numbers, Discriminator(_form)]
"""A list is several upper bounds, each by itself."""
Shares = Annotated[_Share | _Shares, _one_of("a share, or a list of them")]
"""Shares of something, in the same way."""


class DeviceBudgetsSection(Settings):
    """Budgets on a further device, whose latency table has been measured in the same output_dir."""

    latency_ms: Bound | None = None
    """Median latency, in milliseconds."""
    latency_p95_ms: Bound | None = None
    """95th percentile of the latency, in milliseconds."""
    threads: int | None = None
    """Threads that a network runs on; this and what follows as in `device`."""
    batch: int | None = None
    """Images in each run of a network."""
    precision: str | None = None
    """Precision that a network runs in."""
    runtime: str | None = None
    """Runtime that runs a network."""
    provider: str | None = None
    """Execution provider of onnxruntime."""

    def build(self, name: str) -> DeviceSpec:
        """The device; nothing has to be known of how it is reached, as only its table is read.

        Raises:
            UnknownDeviceError: There is no such device, or a field is not valid.
        """
        told = self.model_dump(exclude_none=True)
        own = {key: value for key, value in told.items() if not key.startswith("latency")}
        own["transport"] = "local"
        device = load_device(name, **own)
        precision_of(device)  # refuses unknown ones
        return device


class BudgetsSection(Settings):
    """What candidates have to keep; what is null does not bind."""

    latency_ms: Bounds | None = None
    """Median latency on the device, in milliseconds; a list is several budgets with own winners."""
    latency_of_largest: Shares | None = None
    """The same as a share of the largest network's predicted latency."""
    latency_p95_ms: Bound | None = None
    """95th percentile of the latency on the device, in milliseconds; binds beside the median's."""
    params: Bound | None = None
    """Learnable parameters."""
    macs: Bound | None = None
    """Multiply-accumulates for one image."""
    activation_bytes: Bound | None = None
    """Peak of the activations that are live at the same time, in the device's precision."""
    weight_bytes: Bound | None = None
    """Parameters in the device's precision: what a file of the network holds at least."""
    devices: dict[str, DeviceBudgetsSection] = {}
    """Budgets on further devices, by their names."""

    @field_validator("latency_of_largest")
    @classmethod
    def _one_latency(
        cls, share: float | list[float] | None, info: ValidationInfo
    ) -> float | list[float] | None:
        if share is not None and info.data.get("latency_ms") is not None:
            raise fault("either latency_ms or latency_of_largest is required, not both")
        return share

    @field_validator("devices")
    @classmethod
    def _known(cls, devices: dict[str, DeviceBudgetsSection]) -> dict[str, DeviceBudgetsSection]:
        for name, section in devices.items():
            try:
                section.build(name)
            except UserError as error:
                raise fault(error.required, error.found, error.remedy) from error
        return devices
