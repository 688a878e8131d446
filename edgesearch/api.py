"""The Python API: a run with its commands as methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgesearch.compare.results import CompareResult
from edgesearch.config import Config, load_config
from edgesearch.errors import ConfigError
from edgesearch.events import Report, silent
from edgesearch.run.context import RunContext
from edgesearch.stages.compare import compare
from edgesearch.stages.evaluate import EvaluateResult, evaluate
from edgesearch.stages.export import ExportResult, export
from edgesearch.stages.finetune import FinetuneResult, finetune
from edgesearch.stages.plan import PlanResult, plan
from edgesearch.stages.pretrain import PretrainResult, pretrain
from edgesearch.stages.profile import ProfileResult, profile
from edgesearch.stages.rank import RankResult, rank
from edgesearch.stages.report import ReportResult, write_report
from edgesearch.stages.run import RunResult, run_all
from edgesearch.stages.search import SearchResult, search
from edgesearch.stages.validate import ValidateResult, validate


class Run(RunContext):
    """A run: each command resumes where it was stopped, and skips what is finished.

    With `anew`, output of other settings or inputs is set aside even if it took longer than a few
    minutes; without it, a StageError says so.

    Args:
        config: A YAML file, the name of a shipped configuration such as "quickstart", or a
            `Config`.
        *overrides: Texts such as "pretrain.epochs=20", which replace values of a file.
        report: Called with each event.

    Raises:
        ConfigError: The configuration has faults; the message lists all of them.
    """

    def __init__(
        self, config: str | Path | Config, *overrides: str, report: Report = silent
    ) -> None:
        if not isinstance(config, Config):
            config = load_config(str(config), overrides)
        elif overrides:
            raise ConfigError(
                "overrides only beside a file or a name",
                f"{overrides[0]!r} beside a Config",
                "Give the overrides to load_config, or change the Config with model_copy.",
            )
        super().__init__(config, report)

    def plan(self, *, anew: bool = False) -> PlanResult:
        """Say what `run` would do, and how long it takes on this machine."""
        return plan(self, anew=anew)

    def profile(self, *, export_csv: bool = False, again: bool = False) -> ProfileResult:
        """Build or resume the device's latency table; see `edgesearch.stages.profile`."""
        return profile(self, export_csv=export_csv, again=again)

    def validate(self) -> ValidateResult:
        """Measure whole networks that are not in the table, and compare them with predictions."""
        return validate(self)

    def pretrain(self, *, anew: bool = False) -> PretrainResult:
        """Train the supernet on unlabeled images."""
        return pretrain(self, anew=anew)

    def search(self, *, anew: bool = False) -> SearchResult:
        """Find the best subnets within the budgets."""
        return search(self, anew=anew)

    def finetune(self, *, anew: bool = False) -> FinetuneResult:
        """Train the winners for a task, with labels."""
        return finetune(self, anew=anew)

    def export(self, *, anew: bool = False) -> ExportResult:
        """Compile, verify and measure the winners."""
        return export(self, anew=anew)

    def compare(self, *, anew: bool = False) -> CompareResult:
        """Train and measure the winners beside known networks, and say how they stand."""
        return compare(self, anew=anew)

    def evaluate(self, *, architectures: Sequence[str] = ()) -> EvaluateResult:
        """kNN and linear probe of the winners, named subnets, and both ends of the space."""
        return evaluate(self, architectures=architectures)

    def rank(self, *, anew: bool = False) -> RankResult:
        """Measure how well the score ranks subnets by accuracy."""
        return rank(self, anew=anew)

    def write_report(self, path: Path | None = None) -> ReportResult:
        """Write a page that shows the run; see `edgesearch.stages.report`."""
        return write_report(self, path)

    def run(self, *, anew: bool = False) -> RunResult:
        """Run all stages (finetune with a task only), compare the winners, and write the report."""
        return run_all(self, anew=anew)
