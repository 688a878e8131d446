"""The sections `device`, `profile` and `validation`: where latencies are measured, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from devices.spec import IDENTITY_FIELDS, MEASURED_FIELDS, DeviceSpec, known_devices, load_device
from edgesearch.errors import UserError
from edgesearch.formats.precisions import precision_of
from edgesearch.settings import (
    AppliesTo,
    Count,
    Positive,
    PositiveFraction,
    Seed,
    Settings,
    UserPath,
    fault,
)
from profilers.measure import MeasureConfig

OVER_SSH = AppliesTo(
    "the device is reached over ssh (device.host)",
    lambda config: config.device.build().transport == "ssh",
)
ON_PROCESSOR = AppliesTo(
    "the runtime is onnxruntime (device.runtime)",
    lambda config: not config.device.build().runtime_record.compiles,
)


class MeasuredSettings(Settings):
    """What is measured; null keeps the catalog's value for the device."""

    threads: int | None = None
    """Threads per network."""
    batch: int | None = None
    """Batch size."""
    precision: str | None = None
    """Precision of weights and activations."""
    runtime: str | None = None
    """Inference runtime."""
    provider: str | None = None
    """Execution provider of onnxruntime, such as cuda or openvino; the processor if null."""


class DeviceSettings(MeasuredSettings):
    """The target device; given fields replace those of the catalog."""

    exclusive = (("host", "hosts"),)

    name: str = "local-cpu"
    """Name of a known device (`edgesearch devices`), or a new name if the runtime is given."""
    transport: str | None = None
    """local: this machine; ssh: another one."""
    host: str | None = None
    """Host name for the ssh client; implies ssh."""
    hosts: list[str] | None = None
    """Several identical machines that share the measurements; implies ssh."""
    python: Annotated[str | None, OVER_SSH] = None
    """Python interpreter on the device."""
    ssh_config: Annotated[str | None, OVER_SSH] = None
    """Configuration file for the ssh client; the user's default if null."""
    threads: Annotated[int | None, ON_PROCESSOR] = None  # of a further device it names the table
    """Threads per network."""
    machine: str | None = None
    """Required processor architecture, such as aarch64."""

    @classmethod
    def names(cls) -> list[str]:
        """See `Settings`."""
        return known_devices()

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
    """Undisturbed rounds over all blocks and networks; short ones get more, see `least_ms`."""
    least_ms: Annotated[float, Field(ge=0)] = 500.0
    """Duration of all undisturbed runs of a block or network together, reached in at most ten times
    `rounds`: slow moments of a machine last longer than a few runs of a millisecond."""
    max_rounds: Count | None = Field(default=None, validate_default=True)
    """Maximum rounds of a block or network; three times those that it needs if null."""
    interval: PositiveFraction = MeasureConfig.interval
    """Relative confidence interval of a block's latency at which it gets no further rounds."""
    runs: Count = MeasureConfig.runs
    """Runs of a block per round, after one with cold caches that is recorded separately."""
    networks: Annotated[int, Field(ge=6)] = 24
    """Whole networks measured to correct predictions."""
    max_seconds: Positive = MeasureConfig.max_seconds
    """Time limit; at least two rounds are always made."""
    cache_dir: UserPath | None = None
    """Cache of exported blocks, shared by devices and runs; the user's cache folder if null."""
    accept: list[str] = []
    """Fields in which a latency table may differ from the device, such as driver or name."""
    retry_errors: bool = False
    """Whether `profile` and `validate` retry blocks and networks that failed before."""

    def measure(self, seed: int) -> MeasureConfig:
        """The measuring options; the seed shuffles the order within each round."""
        shared = {"rounds", "least_ms", "max_rounds", "interval", "runs", "max_seconds"}
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
    """Held-out networks to measure."""
    seed: Seed = 0
    """Seed that draws the networks."""
