"""Where the files between the stages are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devices import DeviceSpec


@dataclass(frozen=True)
class Layout:
    """The places below the output folder of a run.

    Attributes:
        output_dir: The output folder.
    """

    output_dir: Path

    def table(self, device: DeviceSpec) -> Path:
        """A device's latency table."""
        return self.output_dir / "latency" / f"{device.name}-{device.identity}.jsonl"

    @property
    def networks(self) -> Path:
        """ONNX files of whole networks, while they are measured."""
        return self.output_dir / "latency" / "networks"

    @property
    def supernet(self) -> Path:
        """Folder of the pre-training."""
        return self.output_dir / "supernet"

    @property
    def weights(self) -> Path:
        """The trained supernet."""
        return self.supernet / "model.safetensors"

    @property
    def search(self) -> Path:
        """Folder of the search."""
        return self.output_dir / "search"

    @property
    def trials(self) -> Path:
        """Every scored architecture."""
        return self.search / "trials.jsonl"

    @property
    def pareto(self) -> Path:
        """The trials that no other beats on each device, and how many were feasible."""
        return self.search / "pareto.json"

    def former_searches(self, name: str) -> list[Path]:
        """Where files of this name are, or were, in searches that were set aside."""
        folders = sorted(self.search.parent.glob(f"{self.search.name}.*"))
        return [folder / name for folder in folders]

    @property
    def images_needed(self) -> Path:
        """On how many images a search scores its candidates."""
        return self.search / "images.json"

    @property
    def ranking(self) -> Path:
        """How the best trials compare, and on how many images."""
        return self.search / "ranking.json"

    @property
    def pareto_plot(self) -> Path:
        """Picture of the trials, those that no other beats, the winners and the budgets."""
        return self.search / "pareto.png"

    @property
    def chosen(self) -> Path:
        """The winners as the search chose them."""
        return self.search / "chosen.json"

    @property
    def winners(self) -> Path:
        """The winners: as chosen, and once they are exported with what was measured."""
        return self.output_dir / "winners.json"

    @property
    def engines(self) -> Path:
        """A folder for each winner."""
        return self.output_dir / "engines"

    @property
    def measured(self) -> Path:
        """The winners as the export measured them."""
        return self.engines / "winners.json"

    @property
    def summary(self) -> Path:
        """Folder of the closing comparison."""
        return self.output_dir / "summary"

    @property
    def rank(self) -> Path:
        """Folder of the command rank."""
        return self.output_dir / "rank"

    @property
    def ranked_subnets(self) -> Path:
        """What the command rank has found of each subnet."""
        return self.rank / "subnets.jsonl"

    @property
    def evaluation(self) -> Path:
        """Accuracies of subnets."""
        return self.output_dir / "evaluation" / "results.json"
