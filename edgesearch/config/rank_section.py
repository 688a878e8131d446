"""The section `rank`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgesearch.settings import Count, CountFromZero, Settings


class RankSection(Settings):
    """How it is found out whether the score orders subnets as their accuracy does."""

    subnets: Annotated[int, Field(ge=4)] = 120
    """Subnets that are scored and evaluated, spread over the MACs of the space."""
    accuracy: Literal["knn", "linear"] = "knn"
    """What subnets are evaluated by, with the settings of the section `evaluation`."""
    bins: Count = 4
    """Parts of equal numbers of subnets, by latency where there is a table, by MACs otherwise."""
    draws: Annotated[int, Field(ge=100)] = 1000
    """How often subnets are drawn anew for the intervals."""
    seed: CountFromZero = 0
    """Which subnets are drawn."""
