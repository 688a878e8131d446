"""File locations of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devices import DeviceSpec
from edgesearch.search.files import SearchFiles


@dataclass(frozen=True)
class RunFiles:
    """File locations below the output folder of a run."""

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
    def search(self) -> SearchFiles:
        """The files of the search."""
        return SearchFiles(self.output_dir / "search")

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
    def evaluation(self) -> Path:
        """Accuracies of subnets."""
        return self.output_dir / "evaluation" / "results.json"
