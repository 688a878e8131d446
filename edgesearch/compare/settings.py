"""The configuration section `compare`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from edgesearch.settings import Count, CountFromZero, Settings, UserPath, fault


class CompareSettings(Settings):
    """The networks that the winners are compared with."""

    baselines: list[str] = ["efficientnet-lite0", "mobilenet_v2", "resnet18"]
    """Known networks: classifiers of torchvision, names of public weights as in pretrain.init, and
    timm/NAME for networks of timm, where that is installed."""
    weights: dict[str, UserPath] = {}
    """Files of public weights, by baseline. Without one, a baseline takes those of its package, as
    in pretrain.init, or random weights if there is none."""
    resolution: Literal["budget", "same"] = "budget"
    """Image size of baselines: the largest at which one is at most as slow as the first winner, or
    the first winner's."""
    random: CountFromZero = 5
    """Random architectures of the first winner's latency."""
    scaled: bool = True
    """Compare with the space's uniformly scaled network: all choices at one level, at the first
    winner's latency."""
    ends: bool = True
    """Compare with the largest and the smallest architecture."""
    seeds: Count = 3
    """Trainings of each network, which differ in the draw of labels, head and order."""
    int8: bool = True
    """Convert each network to int8 as well, judge and measure it."""
    rounds: Annotated[int, Field(ge=10)] = 60
    """Undisturbed rounds in which the networks are measured in turn."""

    @field_validator("baselines")
    @classmethod
    def _once_each(cls, names: list[str]) -> list[str]:
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise fault("each name once is required", ", ".join(twice))
        return names
