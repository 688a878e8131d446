"""winners.json: winners and reserves, with predictions and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from devices.files import write_json
from edgesearch.errors import StageError
from edgesearch.inputs import read_json
from edgesearch.latency.budgets import MEDIAN, P95
from edgesearch.search.feasible import FeasibleSet
from edgesearch.search.ranking import Ranking
from edgesearch.search.trial_log import Trial
from edgesearch.space import Architecture, SearchSpace


@dataclass(frozen=True)
class Winner:
    """A winner or reserve.

    Attributes:
        latency_ms: Figures by device name: predicted, budget, predicted_p95, budget_p95, and
            latency_of, what they are of in words; once measured also measured_p50, interval,
            measured_p95, interval_p95.
        replaced: The too slow candidates that it replaces.
    """

    name: str
    architecture: Architecture
    agreement: float
    macs: float
    params: float
    latency_ms: dict[str, dict[str, Any]]
    agreement_interval: tuple[float, float]
    agreement_images: int
    replaced: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, trial: Trial, within: FeasibleSet, ranking: Ranking) -> Winner:
        """A winner of the search, not yet measured."""
        (own,) = (
            leader.agreement
            for leader in ranking.leaders
            if leader.architecture == trial.architecture
        )
        return cls(
            name=name,
            architecture=trial.architecture,
            agreement=trial.agreement,
            macs=trial.macs,
            params=trial.params,
            latency_ms={
                device: {
                    MEDIAN.predicted: within.cost(median, trial.architecture),
                    P95.predicted: within.cost(p95, trial.architecture),
                    MEDIAN.budget: within.upper(median),
                    P95.budget: within.upper(p95),
                    "latency_of": within.costs.latency_of,
                }
                for device, median in within.costs.latencies.items()
                for p95 in [median.replace("latency_ms", "latency_p95_ms")]
            },
            agreement_interval=(own.low, own.high),
            agreement_images=ranking.images,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], space: SearchSpace) -> Winner:
        """Read the result of `to_dict`.

        Raises:
            KeyError, TypeError: A value is missing or of another form.
            SpaceError: The architecture is not of this space.
        """
        low, high = values["agreement_interval"]
        read = {
            "architecture": space.from_choices(values["architecture"]),
            "replaced": tuple(values["replaced"]),
            "agreement_interval": (low, high),
        }
        return cls(**{name: values[name] for name in cls.__dataclass_fields__} | read)

    def with_latency(self, device: str, **figures: Any) -> Winner:
        """The same winner with additional latency figures for a device."""
        merged = {**self.latency_ms.get(device, {}), **figures}
        return replace(self, latency_ms={**self.latency_ms, device: merged})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values = {**vars(self), "architecture": dict(self.architecture)}
        values["replaced"] = list(self.replaced)
        return values


@dataclass(frozen=True)
class Winners:
    """The winners and reserves of a search."""

    space: str
    space_hash: str
    winners: tuple[Winner, ...]
    reserves: tuple[Winner, ...] = field(default=())
    task: str = "classification"

    @property
    def architectures(self) -> dict[str, Architecture]:
        """Architectures of the winners, by name."""
        return {winner.name: winner.architecture for winner in self.winners}

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        values = {
            "space": self.space,
            "space_hash": self.space_hash,
            "task": self.task,
            "winners": [winner.to_dict() for winner in self.winners],
            "reserves": [winner.to_dict() for winner in self.reserves],
        }
        write_json(path, values)

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> Winners:
        """Read the file that `save` wrote.

        Raises:
            StageError: It is missing, damaged, or of another space.
        """
        values = read_json(path, "search")
        try:
            if values["space_hash"] != space.space_hash:
                raise StageError(
                    f"winners of the space {space.name!r} ({space.space_hash}) in {path}",
                    f"winners of {values['space']!r} ({values['space_hash']})",
                    "Run `edgesearch search` with the same configuration first.",
                )
            return cls(
                values["space"],
                values["space_hash"],
                tuple(Winner.from_dict(winner, space) for winner in values["winners"]),
                tuple(Winner.from_dict(winner, space) for winner in values["reserves"]),
                values["task"],
            )
        except (KeyError, TypeError) as error:
            raise StageError(
                f"the winners of a search in {path}",
                f"{type(error).__name__}: {error}",
                "Move it away, and run `edgesearch search` with the same configuration.",
            ) from error
