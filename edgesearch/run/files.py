"""File locations of a run."""

from __future__ import annotations

from os.path import isdir, isfile
from pathlib import Path

from devices import DeviceSpec
from edgesearch.search.files import SearchFiles

RECORD = "stage.json"
"""Name of the record in a stage's folder."""
CONFIG = "config.yaml"
"""Name of the configuration in a run's folder."""
LOCK = ".lock"


class RunFiles:
    """File locations below the output folder of a run.

    Attributes:
        networks: ONNX files of whole networks, while they are measured.
        supernet: Folder of the pre-training.
        weights: The trained supernet.
        whole_images: A teacher's embeddings of the images that candidates are scored on.
        search: The files of the search.
        winners: The winners: as chosen, after the export with measurements.
        engines: A folder for each winner.
        measured: The winners as measured by the export.
        finetune: Networks trained with labels, a folder each.
        compare: Networks of the comparison, a folder each, and its results.
        summary: Folder of the final comparison.
        rank: Folder of the command rank.
        evaluation: Accuracies of subnets.
        report: The page that shows the run.
        config: The configuration that the last stage was started with.
        lock: Held by the process that writes to the folder.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.networks = output_dir / "latency" / "networks"
        self.supernet = output_dir / "supernet"
        self.weights = self.supernet / "model.safetensors"
        self.whole_images = output_dir / "teacher" / "whole"
        self.search = SearchFiles(output_dir / "search")
        self.winners = output_dir / "winners.json"
        self.engines = output_dir / "engines"
        self.measured = self.engines / "winners.json"
        self.finetune = output_dir / "finetune"
        self.compare = output_dir / "compare"
        self.summary = output_dir / "summary"
        self.rank = output_dir / "rank"
        self.evaluation = output_dir / "evaluation" / "results.json"
        self.report = output_dir / "report.html"
        self.config = output_dir / CONFIG
        self.lock = output_dir / LOCK

    @property
    def stages(self) -> tuple[Path, ...]:
        """The folders of the stages, which are set aside as a whole."""
        return (
            *(self.supernet, self.search.folder, self.finetune, self.engines, self.compare),
            *(self.summary, self.rank),
        )

    def table(self, device: DeviceSpec) -> Path:
        """A device's latency table."""
        return self.output_dir / "latency" / f"{device.name}-{device.identity}.jsonl"

    def is_output(self, folder: Path) -> bool:
        """Whether a folder holds the output of this run, or of any run or stage."""
        if folder.resolve() == self.output_dir.resolve():
            return True
        other = RunFiles(folder)
        return (
            (isfile(other.lock) and isdir(other.networks.parent))
            or isfile(other.evaluation)
            or any(isfile(each / RECORD) for each in (folder, *other.stages))
        )
