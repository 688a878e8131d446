"""The places of a search's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SearchFiles:
    """The files of a search.

    Attributes:
        folder: The folder of the search.
    """

    folder: Path

    @property
    def trials(self) -> Path:
        """Every scored architecture."""
        return self.folder / "trials.jsonl"

    @property
    def pareto(self) -> Path:
        """The trials that no other beats on each device, and how many were feasible."""
        return self.folder / "pareto.json"

    @property
    def pareto_plot(self) -> Path:
        """Picture of the trials, those that no other beats, the winners and the budgets."""
        return self.folder / "pareto.png"

    @property
    def images_needed(self) -> Path:
        """On how many images a search scores its candidates."""
        return self.folder / "images.json"

    @property
    def ranking(self) -> Path:
        """How the best trials compare, and on how many images."""
        return self.folder / "ranking.json"

    @property
    def chosen(self) -> Path:
        """The winners as the search chose them."""
        return self.folder / "chosen.json"

    def former(self, name: str) -> list[Path]:
        """Where files of this name are, or were, in searches that were set aside."""
        folders = sorted(self.folder.parent.glob(f"{self.folder.name}.*"))
        return [folder / name for folder in folders]
