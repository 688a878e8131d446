"""Everything that the report shows of a run, read from its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from devices.files import sha256_of
from edgesearch.compare.results import RESULTS as COMPARED
from edgesearch.compare.results import CompareResult, read_compared
from edgesearch.config import Config, config_text
from edgesearch.errors import StageError, UserError
from edgesearch.export.manifest import installed_versions
from edgesearch.inputs import read_json
from edgesearch.report.device_facts import DeviceFacts, device_specs, read_device
from edgesearch.report.search_facts import SearchFacts, read_search
from edgesearch.report.task_facts import TaskFacts
from edgesearch.report.training_facts import TrainingFacts, read_training
from edgesearch.report.winner_facts import WinnerFacts, read_winners
from edgesearch.run.context import IMAGES, RunContext
from edgesearch.run.stage import read_record
from edgesearch.search.winners import Winners
from edgesearch.space import SearchSpace

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Lack:
    """Something that a run has not, and the command that makes it ("" if none does)."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class RunFacts:
    """A run.

    Attributes:
        name: Name of its folder.
        devices: Devices with a latency table, by name; the run's own first.
        task: Fine-tuned networks; None without.
        compared: The winners beside other networks; None without.
        summary: Rows of the final comparison; empty without.
        labelled: What its kNN accuracies were computed on; None without labels.
        provenance: Names and values.
        lacks: What is missing or damaged.
    """

    name: str
    folder: Path
    device: str
    space: SearchSpace
    config: Config
    devices: dict[str, DeviceFacts]
    training: TrainingFacts | None
    search: SearchFacts | None
    winners: tuple[WinnerFacts, ...]
    task: TaskFacts | None
    compared: CompareResult | None
    summary: tuple[dict[str, Any], ...]
    labelled: dict[str, Any] | None
    provenance: dict[str, str]
    lacks: tuple[Lack, ...]

    @property
    def config_text(self) -> str:
        """The configuration as YAML."""
        return config_text(self.config)


Part = TypeVar("Part")


class _Reader:
    """Reads the parts of a run; notes what is missing or damaged."""

    def __init__(self) -> None:
        self.lacks: list[Lack] = []

    def __call__(
        self, read: Callable[[], Part | None], missing: str, command: str = ""
    ) -> Part | None:
        """What `read` returns; None, and a note (unless it is ""), if that is None or it fails."""
        try:
            found = read()
        except UserError as error:
            text = f"required: {error.required}; found: {error.found}. {error.remedy}"
            self.lacks.append(Lack(text))
            return None
        if found is None and missing:
            self.lacks.append(Lack(missing, command))
        return found


def read_run(run: RunContext) -> RunFacts:
    """Everything known of a run; what is missing or damaged is named in `lacks`."""
    files, read = run.files, _Reader()
    devices = {}
    for spec in device_specs(run):
        device = read(
            lambda spec=spec: read_device(run, spec),  # type: ignore[misc]
            f"There is no latency table of {spec.name} yet.",
            "profile",
        )
        if device is not None:
            devices[spec.name] = device
            if device.model is None:
                read.lacks.append(
                    Lack(f"The latency table of {spec.name} is not complete.", "profile")
                )
    training = read(lambda: read_training(run), "The supernet is not trained yet.", "pretrain")
    if training is not None and not training.finished:
        done = f"{len(training.epochs)} of {training.wanted} epochs"
        read.lacks.append(Lack(f"The training was stopped after {done}.", "pretrain"))

    def found_winners() -> Winners | None:
        if not files.winners.exists():
            return None
        found = Winners.load(files.winners, run.space)
        known = {name for winner in found.winners for name in winner.latency_ms}
        if run.device.name not in known:
            raise StageError(
                f"winners for {run.device.name}",
                f"winners for {', '.join(sorted(known))} in {files.winners}",
                "Name that device (device.name=NAME), or run `edgesearch search` for this one.",
            )
        return found

    chosen = read(found_winners, "There are no winners yet.", "search")
    search = read(lambda: read_search(run, devices, chosen), "Nothing was searched yet.", "search")
    if search is not None and not search.finished:
        done = f"{len(search.trials)} of {search.wanted} candidates"
        read.lacks.append(Lack(f"The search was stopped after {done}.", "search"))
    winners = () if chosen is None else read_winners(run, chosen, devices)
    task = None
    if run.config.finetune.task is not None or run.files.finetune.exists():
        # Imports torchvision, which takes longer than the rest of a report.
        from edgesearch.report.read_task import read_task

        task = read(lambda: read_task(run), "No network is fine-tuned yet.", "finetune")
    compared = None
    if (files.compare / COMPARED).exists():
        compared = read(lambda: read_compared(files.compare), "")
    if any(each.manifest is None for each in winners):
        read.lacks.append(Lack("The winners are not exported and measured yet.", "export"))
    summary: dict[str, Any] = {"rows": [], "labelled": None}
    if winners and (files.summary / SUMMARY).exists():
        found = read(lambda: dict(read_json(files.summary / SUMMARY, "run")), "")
        summary = found or summary
    elif winners:
        read.lacks.append(Lack("The winners are not compared with the ends of the space.", "run"))
    return RunFacts(
        name=files.output_dir.resolve().name,
        folder=files.output_dir,
        device=run.device.name,
        space=run.space,
        config=run.config,
        devices=devices,
        training=training,
        search=search,
        winners=winners,
        task=task,
        compared=compared,
        summary=tuple(summary["rows"]),
        labelled=summary["labelled"],
        provenance=_provenance(run, devices, training, winners),
        lacks=tuple(dict.fromkeys(read.lacks)),
    )


def _provenance(
    run: RunContext,
    devices: dict[str, DeviceFacts],
    training: TrainingFacts | None,
    winners: tuple[WinnerFacts, ...],
) -> dict[str, str]:
    """Where everything comes from."""
    manifests = [each.manifest for each in winners if each.manifest is not None]
    versions = manifests[0]["versions"] if manifests else installed_versions()
    origin = None if training is None else training.origin
    trained = read_record(run.files.supernet) or {"inputs": {}}
    rows = {
        "seed": str(run.config.seed),
        "search space": f"{run.space.name}, {run.space.size:,} architectures",
        "hash of the space": run.space.space_hash,
        "images": _images(run),
        "SHA-256 of the set of images": trained["inputs"].get(IMAGES, ""),
        "licence of the images": run.config.data.licence or "not given (data.licence)",
    }
    if origin is not None:
        rows["initial weights"] = origin.source
        rows["licence of the initial weights"] = (
            origin.licence or "not given (pretrain.init_licence)"
        )
    if run.files.weights.exists():
        rows["SHA-256 of the supernet"] = sha256_of(run.files.weights)
    for name, device in devices.items():
        rows[f"latency table of {name}"] = device.path.name
        rows[f"SHA-256 of its measurements ({name})"] = device.digest
    exported = "versions at export" if manifests else "versions now"
    rows[exported] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {name: value for name, value in rows.items() if value}


def _images(run: RunContext) -> str:
    data = run.config.data
    named = {"digits": "scikit-learn's handwritten digits"}.get(data.source, "")
    where = " ".join(str(each) for each in (data.name, data.root) if each is not None)
    return named or f"{data.source}: {where}"
