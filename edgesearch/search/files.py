"""File locations of a search."""

from __future__ import annotations

from pathlib import Path


class SearchFiles:
    """File locations in the folder of a search.

    Attributes:
        trials: All scored architectures.
        pareto: The Pareto front on each device, and the number of feasible architectures.
        pareto_plot: Plot of trials, front, winners and budgets.
        images_needed: Number of images for scoring.
        ranking: Ranking of the best trials, and its number of images.
        chosen: Winners as chosen by the search.
        training: Whether the supernet seems to be trained.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials = folder / "trials.jsonl"
        self.pareto = folder / "pareto.json"
        self.pareto_plot = folder / "pareto.png"
        self.images_needed = folder / "images.json"
        self.ranking = folder / "ranking.json"
        self.chosen = folder / "chosen.json"
        self.training = folder / "training.json"

    def former(self, name: str) -> list[Path]:
        """Paths of this file name in searches that were set aside."""
        folders = sorted(self.folder.parent.glob(f"{self.folder.name}.*"))
        return [folder / name for folder in folders]
