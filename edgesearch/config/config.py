"""The whole configuration: the settings of all rooms."""

from __future__ import annotations

import warnings
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgesearch.compare.settings import CompareSettings
from edgesearch.data.settings import DataSettings
from edgesearch.errors import UserNotice
from edgesearch.evaluate.settings import EvaluationSettings, RankSettings
from edgesearch.export.settings import ExportSettings
from edgesearch.families.settings import SpaceSettings
from edgesearch.latency.settings import DeviceSettings, ProfileSettings, ValidationSettings
from edgesearch.pretrain.settings import PretrainSettings
from edgesearch.search.settings import SearchSettings
from edgesearch.settings import Seed, Settings, UserPath, fault
from edgesearch.tasks.settings import WITH_TASK, FinetuneSettings


class Config(Settings):
    """A whole configuration."""

    output_dir: UserPath
    """Output folder."""
    seed: Seed = 0
    """Random seed."""
    space: SpaceSettings
    """The search space."""
    device: DeviceSettings = Field(default_factory=DeviceSettings)
    """The device that networks are chosen for."""
    data: DataSettings
    """The images."""
    profile: ProfileSettings = ProfileSettings()
    """How the latency table is measured."""
    validation: ValidationSettings = ValidationSettings()
    """How predicted latencies are judged."""
    pretrain: PretrainSettings = PretrainSettings()
    """How the supernet is trained."""
    search: SearchSettings = SearchSettings()
    """How subnets are searched."""
    finetune: Annotated[FinetuneSettings, WITH_TASK] = FinetuneSettings()
    """How networks are trained with labels."""
    compare: Annotated[CompareSettings, WITH_TASK] = CompareSettings()
    """What the winners are compared with."""
    export: ExportSettings = ExportSettings()
    """How the winners are exported."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How accuracies of subnets are computed."""
    rank: RankSettings = RankSettings()
    """How the ranking by score is compared with the ranking by accuracy."""

    @model_validator(mode="after")
    def _tell_what_has_no_effect(self) -> Config:
        for line in self.without_effect(self):
            warnings.warn(line, UserNotice, stacklevel=2)
        return self

    @field_validator("data")
    @classmethod
    def _channels(cls, data: DataSettings, info: ValidationInfo) -> DataSettings:
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
    def _has_the_reference(cls, search: SearchSettings, info: ValidationInfo) -> SearchSettings:
        pretrain, name = info.data.get("pretrain"), search.foreign_reference
        if name is not None and pretrain is not None and getattr(pretrain, name) is None:
            raise fault(
                f"pretrain.{name} is required by search.reference {name}",
                "null",
                "Set it, or choose another reference",
            )
        return search

    @field_validator("search")
    @classmethod
    def _further_devices(cls, search: SearchSettings, info: ValidationInfo) -> SearchSettings:
        device = info.data.get("device")
        if device is not None and device.name in search.budgets.devices:
            raise fault(
                "names of other devices are required in search.budgets.devices",
                repr(device.name),
                "Set the budgets of the device itself in search.budgets.",
            )
        return search
