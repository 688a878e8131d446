"""The page of one or several runs."""

from __future__ import annotations

import datetime
import importlib.resources
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup, escape

from edgesearch import __version__
from edgesearch.errors import StageError
from edgesearch.report import words
from edgesearch.report.charts import (
    Chart,
    comparison_chart,
    effects_chart,
    pareto_chart,
    prediction_chart,
    runs_chart,
    training_charts,
)
from edgesearch.report.run_facts import RunFacts
from edgesearch.report.task_facts import title_of
from edgesearch.report.verdict import Verdict, verdicts
from edgesearch.search.winners import Winner

GENERATOR = "edgesearch"
"""What the page names as its generator."""
TEMPLATES = "templates"
SAME_EVERYWHERE = ("output_dir",)
"""Options that differ between any two runs, and say nothing."""
DIGITS = 6
"""Significant digits of figures in charts and tables of trials."""


@dataclass(frozen=True)
class Difference:
    """An option that differs between runs, with its value in each."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class RunView:
    """A run, with what the page shows of it.

    Attributes:
        number: Its place on the page, from 0.
    """

    number: int
    facts: RunFacts

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each winner."""
        return verdicts(self.facts)

    @cached_property
    def winners(self) -> dict[str, Winner]:
        """The winners by architecture."""
        return {str(each.winner.architecture): each.winner for each in self.facts.winners}

    @property
    def sections(self) -> dict[str, str]:
        """Titles of the sections that it has, by identifier."""
        facts = self.facts
        present = {
            "verdict": ("Verdict", True),
            "search": ("Search", facts.search is not None),
            "choices": ("Choices", self.effects is not None),
            "winners": ("Winners", bool(facts.winners)),
            "comparison": ("Comparison", facts.compared is not None),
            "task": ("Task", facts.task is not None),
            "images": ("Images", any(each.neighbours is not None for each in facts.winners)),
            "devices": ("Devices", bool(facts.devices)),
            "training": ("Training", facts.training is not None),
            "origin": ("Provenance", True),
        }
        return {name: title for name, (title, is_there) in present.items() if is_there}

    @property
    def pareto_charts(self) -> list[Chart]:
        """A front for each device."""
        search = self.facts.search
        if search is None:
            return []
        return [pareto_chart(search, name, self.winners) for name in search.latencies_ms]

    @property
    def prediction_charts(self) -> dict[str, Chart]:
        """Predicted against measured latencies by device."""
        devices = self.facts.devices.items()
        return {name: prediction_chart(each) for name, each in devices if each.networks}

    @property
    def comparison_chart(self) -> Chart | None:
        """Metric against latency of the compared networks; None without a comparison."""
        compared = self.facts.compared
        return None if compared is None else comparison_chart(compared)

    @property
    def effects(self) -> Chart | None:
        """What each choice does; None if there are too few trials."""
        search = self.facts.search
        return effects_chart(search.effects) if search is not None and search.effects else None

    @property
    def training_charts(self) -> list[Chart]:
        """Curves of the training."""
        training = self.facts.training
        return training_charts(training) if training is not None and training.epochs else []

    @property
    def trials(self) -> dict[str, Any] | None:
        """The table of trials, for the page's script."""
        search = self.facts.search
        if search is None:
            return None
        fronts = {place for front in search.fronts.values() for place in front}
        rows = []
        for place, trial in enumerate(search.trials):
            winner = self.winners.get(str(trial.architecture))
            note = "front" if place in fronts else ""
            rows.append(
                {
                    "architecture": str(trial.architecture),
                    "agreement": trial.agreement,
                    "latencies": [found[place] for found in search.latencies_ms.values()],
                    "params": trial.params,
                    "macs": round(trial.macs),
                    "mark": note if winner is None else winner.name,
                    "choices": [*trial.architecture.values()],
                }
            )
        return {
            "devices": [*search.latencies_ms],
            "choices": [*search.trials[0].architecture],
            "rows": rows,
        }


def make_page(runs: Sequence[RunFacts]) -> bytes:
    """The page of some runs, one HTML file in UTF-8 that needs no network.

    Raises:
        StageError: The package plotly is missing.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("edgesearch.report", TEMPLATES)
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (words.ms, words.percent, words.count, words.millions, words.size, words.duration)
    environment.filters |= {each.__name__: each for each in shown}
    environment.filters["title_of"] = title_of
    environment.filters["chart"] = lambda chart: plain(asdict(chart))
    environment.filters |= {"plain": plain, "code": _with_code, "quote": shlex.quote, "repr": repr}
    environment.globals["source"] = lambda name: loader.get_source(environment, name)[0]
    views = [RunView(number, facts) for number, facts in enumerate(runs)]
    text = environment.get_template("report.html").render(
        runs=views,
        differences=differences(runs) if len(runs) > 1 else [],
        runs_chart=_runs_chart(runs),
        generator=f"{GENERATOR} {__version__}",
        made=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        plotly=_plotly(),
    )
    # Names of files may hold bytes that are not UTF-8.
    return text.encode("utf-8", "backslashreplace")


def differences(runs: Sequence[RunFacts]) -> list[Difference]:
    """The options in which the configurations of some runs differ."""
    options = [_flat(run.config.model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(key for each in options for key in each)
    found = [
        Difference(key, tuple(_shown(each.get(key)) for each in options))
        for key in keys
        if key not in SAME_EVERYWHERE
    ]
    return [each for each in found if len({*each.values}) > 1]


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{key}.")
        else:
            found[above + key] = value
    return found


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)


def _runs_chart(runs: Sequence[RunFacts]) -> Chart | None:
    """Accuracy against latency over several runs, where both are known."""
    points = [
        (run.name, winner.winner.name, winner.figures["measured_p50"], row["knn"])
        for run in runs
        for winner in run.winners
        for row in run.summary
        if row["name"] == f"winner {winner.winner.name}"
        and row["knn"] is not None
        and "measured_p50" in winner.figures
    ]
    if len({name for name, *_ in points}) < 2:
        return None
    return runs_chart(points, "kNN accuracy")


def plain(value: Any) -> Any:
    """Plain JSON values with few digits; null for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _with_code(text: str) -> Markup:
    """A sentence in HTML, in which `backticks` mark code."""
    parts = [escape(part) for part in text.split("`")]
    for place in range(1, len(parts) - 1, 2):
        parts[place] = Markup("<code>{}</code>").format(parts[place])
    return Markup("").join(parts)


def _plotly() -> str:
    """The script of Plotly, from its Python package."""
    try:
        package = importlib.resources.files("plotly")
        return (package / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    except (ImportError, OSError) as error:
        raise StageError(
            "the package plotly, whose script draws the charts of a report",
            str(error),
            "Install it: pip install plotly",
        ) from error
