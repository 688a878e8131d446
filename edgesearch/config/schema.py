"""All sections of a configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from devices.spec import (
    IDENTITY_FIELDS,
    MEASURED_FIELDS,
    DeviceSpec,
    known_devices,
    load_device,
)
from edgesearch.config.budgets_section import BudgetsSection
from edgesearch.config.evaluation_section import EvaluationSection
from edgesearch.config.rank_section import RankSection
from edgesearch.errors import UserError
from edgesearch.pretrain.settings import PretrainSettings
from edgesearch.settings import (
    Batch,
    Count,
    CountFromZero,
    Fraction,
    Positive,
    PositiveFraction,
    Settings,
    UserPath,
    fault,
)
from edgesearch.space import SearchSpace, load_space, space_from_dict


class SpaceSection(Settings):
    """The search space: one that comes with edgesearch, or one's own.

    Without `family`, `name` names a space that comes with edgesearch, and all other keys replace
    fields of it. With `family`, the keys define a new space.
    """

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    """Name of a space that comes with edgesearch, or a new one's name."""
    family: str | None = None
    """Family of a new space."""

    def build(self) -> SearchSpace:
        """The space.

        Raises:
            SpaceError: There is no such space, or a field is not valid.
        """
        fields = self.model_extra or {}
        if self.family is None:
            return load_space(self.name or "", **fields)
        return space_from_dict({"name": self.name or "own", "family": self.family, **fields})

    @model_validator(mode="after")
    def _valid(self) -> SpaceSection:
        if self.name is None and self.family is None:
            raise fault("`name` of a space or `family` of a new one is required")
        try:
            self.build()
        except UserError as error:
            raise fault(error.required, error.found, error.remedy) from error
        return self


class DeviceSection(Settings):
    """The device that networks are chosen for; fields that are given replace the device's own."""

    name: str = "local-cpu"
    """Name of a known device (`edgesearch devices`); or one's own, if the runtime is given."""
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
        if fields["name"] not in known_devices() and "runtime" in fields:
            return DeviceSpec.from_dict(fields)  # a device of the user's own
        return load_device(fields.pop("name"), **fields)

    @field_validator("hosts")
    @classmethod
    def _one_way(cls, hosts: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if hosts is not None and info.data.get("host") is not None:
            raise fault("either host or hosts is required, not both")
        return hosts

    @model_validator(mode="after")
    def _valid(self) -> DeviceSection:
        try:
            self.build()
        except UserError as error:
            raise fault(error.required, error.found, error.remedy) from error
        return self


class DataSection(Settings):
    """The images."""

    source: Literal["folder", "shards", "torchvision", "digits"] = "folder"
    """A folder of images, tar shards, a set of torchvision, or scikit-learn's digits."""
    root: UserPath | None = Field(default=None, validate_default=True)
    """Folder of the images, of the shards (or a pattern, `train-{000..146}.tar`), or of the set."""
    name: str | None = Field(default=None, validate_default=True)
    """Class of torchvision.datasets, such as CIFAR10; its files have to be there already."""
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of each class that is held out for evaluation where the images have no splits."""
    mean: list[Fraction] | None = None
    """Mean of each channel, of pixel values in 0 to 1; that of the images if null."""
    std: list[PositiveFraction] | None = Field(default=None, validate_default=True)
    """Standard deviation of each channel; that of the images if null."""
    resize_ratio: Annotated[float, Field(ge=1)] = 1.0
    """The short side is resized to this multiple of the resolution before the centre crop."""
    licence: str | None = None
    """Licence of the images, such as CC-BY-4.0, which manifests of winners tell."""

    @field_validator("root")
    @classmethod
    def _root_of_a_folder(cls, root: UserPath | None, info: ValidationInfo) -> UserPath | None:
        source = info.data.get("source")
        if root is None and source in ("folder", "shards", "torchvision"):
            what = "of images" if source == "folder" else f"for data.source={source}"
            raise fault(f"the path of the folder {what} is required (data.root=PATH)")
        return root

    @field_validator("name")
    @classmethod
    def _name_of_a_set(cls, name: str | None, info: ValidationInfo) -> str | None:
        of_torchvision = info.data.get("source") == "torchvision"
        if name is None and of_torchvision:
            raise fault("the name of a class of torchvision.datasets is required (data.name=NAME)")
        if name is not None and not of_torchvision and "source" in info.data:
            raise fault("null is required for any data.source but torchvision")
        return name

    @field_validator("std")
    @classmethod
    def _as_mean(cls, std: list[float] | None, info: ValidationInfo) -> list[float] | None:
        if "mean" in info.data and len(std or ()) != len(info.data["mean"] or ()):
            raise fault("as many values as in data.mean are required (or null for both)")
        return std


class ProfileSection(Settings):
    """How the latency table is measured."""

    rounds: Count = 12
    """Rounds over all blocks in turn, in which the machine was not disturbed."""
    max_rounds: Count | None = Field(default=None, validate_default=True)
    """Rounds of a block at most; three times `rounds` if null."""
    interval: PositiveFraction = 0.03
    """A block gets further rounds until its latency is known within this share of it."""
    runs: Count = 3
    """Runs of a block in each round, after a first one with cold caches, which counts apart."""
    networks: Annotated[int, Field(ge=6)] = 12
    """Whole networks that are measured beside the blocks, to correct predictions."""
    max_seconds: Positive = 300.0
    """Longest time of measuring; fewer rounds are made if it is over, but never fewer than two."""
    cache_dir: UserPath | None = None
    """Keeps the exported blocks, for other devices and runs; the user's cache folder if null."""
    accept: list[str] = []
    """Fields in which a latency table may differ from the device, such as driver or name."""
    retry_errors: bool = False
    """Whether `profile` and `validate` try again blocks and networks that could not run before."""

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


class ValidationSection(Settings):
    """How predicted latencies are judged."""

    networks: Annotated[int, Field(ge=2)] = 24
    """Whole networks that are measured; none that predictions were fitted to."""
    seed: CountFromZero = 0
    """Which networks are drawn."""


class SearchSection(Settings):
    """How subnets are chosen."""

    strategy: Literal["surrogate", "evolution", "tpe", "random", "exhaustive"] = "surrogate"
    """How candidates are proposed."""
    evaluations: Count = 200
    """Candidates that are scored."""
    population: Annotated[int, Field(ge=2)] | None = None
    """Population of the evolution, a quarter of the evaluations at most; chosen if null."""
    budgets: BudgetsSection = BudgetsSection()
    """What candidates have to keep."""
    task: Literal["classification", "detection", "segmentation"] = "classification"
    """What networks are for: whole images are compared, or places of them."""
    score: Literal["cosine", "relation", "cka"] = "cosine"
    """How two networks are compared: cosine of embeddings (for places: of the rows of their
    self-similarity), relation (correlation of similarities), cka (centred kernel alignment)."""
    reference: Literal["key", "largest"] = "key"
    """What candidates are compared with: the key encoder, or the largest subnet."""
    stages: Annotated[list[Count], Field(min_length=1)] | None = None
    """Stages whose maps are compared, for detection and segmentation; the last one if null."""
    images: Count = 1024
    """Images on which agreement is computed, at most; fewer if these tell candidates apart."""
    calibration_images: Batch = 1024
    """Images on which batch normalisation is calibrated for each candidate."""
    batch_size: Batch = 128
    """Images in each forward pass."""
    candidates_at_once: Count = 8
    """Candidates that are proposed at a time; the same however many processes score them."""
    winners: Count = 1
    """Winners to export, for each budget if there are several."""
    reserves: CountFromZero = 10
    """Candidates next in rank, for each budget, which replace winners that turn out too slow."""

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


class TensorRTSection(Settings):
    """TensorRT-RTX engines, built with or without a GPU."""

    compute_capabilities: Annotated[
        list[Annotated[str, Field(pattern=r"^SM\d{2,3}$")]], Field(min_length=1)
    ] = ["SM75", "SM86", "SM89", "SM120"]
    """GPU generations that one engine file serves."""
    precision: Literal["fp16", "fp32", "int8"] | None = None
    """Precision of weights and activations; if null, int8 for a device whose runtime is TensorRT
    and whose precision is int8, fp16 for any other."""

    @field_validator("precision")
    @classmethod
    def _supported(cls, precision: str | None, info: ValidationInfo) -> str | None:
        if precision == "fp32" and "SM75" in info.data.get("compute_capabilities", ()):
            raise fault("fp16 is required for SM75, which lacks fp32 matrix products")
        return precision


class ExportSection(Settings):
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
    tensorrt: TensorRTSection | None = TensorRTSection()
    """TensorRT-RTX engines; null builds none."""


class Config(Settings):
    """A whole configuration."""

    output_dir: UserPath
    """Folder that everything is written to."""
    seed: CountFromZero = 0
    """Seed of everything random."""
    space: SpaceSection
    """The search space."""
    device: DeviceSection = Field(default_factory=DeviceSection)
    """The device that networks are chosen for."""
    data: DataSection
    """The images."""
    profile: ProfileSection = ProfileSection()
    """How the latency table is measured."""
    validation: ValidationSection = ValidationSection()
    """How predicted latencies are judged."""
    pretrain: PretrainSettings = PretrainSettings()
    """How the supernet is trained."""
    search: SearchSection = SearchSection()
    """How subnets are chosen."""
    export: ExportSection = ExportSection()
    """What is made of the winners."""
    evaluation: EvaluationSection = EvaluationSection()
    """How accuracies of subnets are computed."""
    rank: RankSection = RankSection()
    """How it is found out whether the score orders subnets as their accuracy does."""

    @field_validator("data")
    @classmethod
    def _channels(cls, data: DataSection, info: ValidationInfo) -> DataSection:
        space = info.data.get("space")
        if space is not None and data.mean is not None:
            channels = space.build().in_channels
            if len(data.mean) != channels:
                raise fault(
                    f"mean and std of {channels} value(s) are required, one for each channel of "
                    "the space (space.in_channels)"
                )
        return data

    @field_validator("search")
    @classmethod
    def _further_devices(cls, search: SearchSection, info: ValidationInfo) -> SearchSection:
        device = info.data.get("device")
        if device is not None and device.name in search.budgets.devices:
            raise fault(
                "names of further devices are required in search.budgets.devices",
                repr(device.name),
                "The budgets of the device itself stand in search.budgets.",
            )
        return search
