"""The sections `device`, `profile` and `validation`: where latencies are measured, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from devices.spec import (
    IDENTITY_FIELDS,
    MEASURED_FIELDS,
    DeviceSpec,
    load_device,
)
from edgesearch.errors import UserError
from edgesearch.formats.precisions import precision_of
from edgesearch.settings import (
    Count,
    CountFromZero,
    Positive,
    PositiveFraction,
    Settings,
    UserPath,
    fault,
)
from profilers.measure import MeasureConfig


class MeasuredSettings(Settings):
    """What latencies are of; what is null is as the catalog describes the device."""

    threads: int | None = None
    """Threads that a network runs on."""
    batch: int | None = None
    """Images in each run of a network."""
    precision: str | None = None
    """Precision that a network runs in."""
    runtime: str | None = None
    """Runtime that runs a network."""
    provider: str | None = None
    """Execution provider of onnxruntime, such as cuda or openvino; the processor if null."""


class DeviceSettings(MeasuredSettings):
    """The device that networks are chosen for; fields that are given replace the device's own."""

    name: str = "local-cpu"
    """Name of a known device (`edgesearch devices`); or one's own, if the runtime is given."""
    transport: str | None = None
    """How the device is reached: local is this machine, ssh another one."""
    host: str | None = None
    """The other machine, by its name for the ssh client; implies ssh."""
    hosts: list[str] | None = None
    """Several machines of one kind, which share the work of measuring; implies ssh."""
    python: str | None = None
    """The interpreter over there."""
    ssh_config: str | None = None
    """Configuration file for the ssh client; the user's own if null."""
    machine: str | None = None
    """Architecture that the device has, such as aarch64; another machine is refused."""

    def build(self) -> DeviceSpec:
        """The device.

        Raises:
            UnknownDeviceError: There is no such device, or a field is not valid.
        """
        fields = self.model_dump(exclude_none=True)
        if "host" in fields:
            fields["hosts"] = [fields.pop("host")]
        if "hosts" in fields:
            fields = {"transport": "ssh", **fields}
        return make_device(**fields)

    @field_validator("hosts")
    @classmethod
    def _one_way(cls, hosts: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if hosts is not None and info.data.get("host") is not None:
            raise fault("either host or hosts is required, not both")
        return hosts

    @model_validator(mode="after")
    def _valid(self) -> DeviceSettings:
        try:
            self.build()
        except UserError as error:
            raise fault(error.required, error.found, error.remedy) from error
        return self


def make_device(name: str, **fields: object) -> DeviceSpec:
    """A device of the catalog with some fields replaced, or one of the user's own.

    Raises:
        UnknownDeviceError: There is no such device, or a field is not valid.
    """
    device = load_device(name, **fields)
    precision_of(device)  # refuses unknown ones
    return device


class ProfileSettings(Settings):
    """How the latency table is measured."""

    rounds: Count = MeasureConfig.rounds
    """Rounds over all blocks in turn, in which the machine was not disturbed."""
    max_rounds: Count | None = Field(default=None, validate_default=True)
    """Rounds of a block at most; three times `rounds` if null."""
    interval: PositiveFraction = MeasureConfig.interval
    """A block gets further rounds until its latency is known within this share of it."""
    runs: Count = MeasureConfig.runs
    """Runs of a block in each round, after a first one with cold caches, which counts apart."""
    networks: Annotated[int, Field(ge=6)] = 12
    """Whole networks that are measured beside the blocks, to correct predictions."""
    max_seconds: Positive = MeasureConfig.max_seconds
    """Longest time of measuring; fewer rounds are made if it is over, but never fewer than two."""
    cache_dir: UserPath | None = None
    """Keeps the exported blocks, for other devices and runs; the user's cache folder if null."""
    accept: list[str] = []
    """Fields in which a latency table may differ from the device, such as driver or name."""
    retry_errors: bool = False
    """Whether `profile` and `validate` try again blocks and networks that could not run before."""

    def measure(self, seed: int) -> MeasureConfig:
        """How often and how long to measure; the seed decides the order in each round."""
        shared = {"rounds", "max_rounds", "interval", "runs", "max_seconds"}
        return MeasureConfig(seed=seed, **self.model_dump(include=shared))

    @field_validator("max_rounds")
    @classmethod
    def _at_least_rounds(cls, max_rounds: int | None, info: ValidationInfo) -> int | None:
        rounds = info.data.get("rounds")
        if max_rounds is not None and rounds is not None and max_rounds < rounds:
            raise fault(f"at least profile.rounds ({rounds}) is required")
        return max_rounds

    @field_validator("accept")
    @classmethod
    def _fields_of_a_table(cls, accept: list[str]) -> list[str]:
        fields = (*MEASURED_FIELDS, *IDENTITY_FIELDS)
        unknown = [field for field in accept if field not in fields]
        if unknown:
            raise fault(
                f"fields in which tables are compared are required: {', '.join(fields)}",
                repr(unknown[0]),
            )
        return accept


class ValidationSettings(Settings):
    """How predicted latencies are judged."""

    networks: Annotated[int, Field(ge=2)] = 24
    """Whole networks that are measured; none that predictions were fitted to."""
    seed: CountFromZero = 0
    """Which networks are drawn."""
