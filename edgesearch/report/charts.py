"""The charts of a report, as Plotly figures in plain values.

Colours are names of the page's CSS variables, such as "--accent", which its script resolves for
light and dark. Texts of users (names of devices) are escaped there, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgesearch.compare.results import ComparedRow, CompareResult
from edgesearch.latency.table import NETWORK, VALIDATION, WINNER
from edgesearch.report import words
from edgesearch.report.choice_effects import ChoiceEffect
from edgesearch.report.device_facts import KINDS, DeviceFacts, NetworkPoint
from edgesearch.report.search_facts import SearchFacts
from edgesearch.report.task_facts import title_of
from edgesearch.report.training_facts import TrainingFacts
from edgesearch.search.winners import Winner

SERIES = tuple(f"--series-{number}" for number in range(1, 9))
KIND_MARKS = {
    KINDS[NETWORK]: ("--accent", "circle"),
    KINDS[VALIDATION]: ("--series-2", "circle"),
    KINDS[WINNER]: ("--good", "star"),
}
FAR = 2.0
"""A budget further right than this multiple of the slowest trial would squeeze the trials."""


@dataclass(frozen=True)
class Chart:
    """A Plotly figure.

    Attributes:
        title: What it shows, read to those who cannot see it.
        links: Whether its points are trials: `customdata` holds their places in the table.
    """

    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    links: bool = False


def pareto_chart(search: SearchFacts, device: str, winners: Mapping[str, Winner]) -> Chart:
    """Agreement against predicted latency on a device: trials, front, winners and budgets.

    Args:
        search: The search.
        device: Name of the device.
        winners: The winners by architecture.
    """
    names = [str(trial.architecture) for trial in search.trials]
    won = [place for place, name in enumerate(names) if name in winners]
    figures = {place: winners[names[place]].latency_ms.get(device, {}) for place in won}
    measured = [place for place in won if "measured_p50" in figures[place]]
    front = search.fronts[device]
    xs = search.latencies_ms[device]

    def points(places: Sequence[int], name: str, **style: Any) -> dict[str, Any]:
        return {
            "type": "scatter",
            "name": name,
            "x": [xs[place] for place in places],
            "y": [search.trials[place].agreement for place in places],
            "customdata": [*places],
            "hovertext": [names[place] for place in places],
            "hovertemplate": "%{hovertext}<br>agreement %{y:.4f}<br>%{x:.4~g} ms predicted",
            **style,
        }

    traces = [
        points(
            range(len(names)),
            "trials",
            mode="markers",
            marker={"size": 7, "color": "--faint", "opacity": 0.65},
        ),
        points(
            front,
            "Pareto front",
            mode="lines+markers",
            line={"shape": "hv", "width": 2, "color": "--accent"},
            marker={"size": 7, "color": "--accent"},
        ),
        points(
            won,
            "winners" if len(won) > 1 else "winner",
            mode="markers+text",
            marker={"symbol": "star", "size": 16, "color": "--good"},
            text=[winners[names[place]].name for place in won],
            textposition="top center",
            cliponaxis=False,
        ),
    ]
    if measured:
        found_ms = [figures[place]["measured_p50"] for place in measured]
        traces.append(
            points(
                measured,
                "as measured",
                x=found_ms,
                mode="markers",
                marker={"symbol": "diamond-open", "size": 12, "line": {"width": 2.5}}
                | {"color": "--good"},
                hovertemplate="%{hovertext}<br>agreement %{y:.4f}<br>%{x:.4~g} ms measured",
            )
        )
    budgets = [ms for ms in search.budgets_ms[device] if ms <= FAR * max(xs)]
    return Chart(
        f"Agreement against predicted latency on {device}",
        traces,
        {
            "xaxis": {"title": {"text": f"predicted median on {device} (ms)"}},
            "yaxis": {"title": {"text": "agreement"}},
            **_upright([(ms, f"budget {words.ms(ms)}") for ms in budgets]),
        },
        links=True,
    )


def comparison_chart(compared: CompareResult) -> Chart:
    """Metric against measured latency of the networks of a comparison, with the front."""
    metric = title_of(compared.metric)

    def points(rows: Sequence[ComparedRow], name: str, **style: Any) -> dict[str, Any]:
        return {
            "type": "scatter",
            "name": name,
            "x": [row.latency_ms for row in rows],
            "y": [100 * row.mean for row in rows],
            "hovertext": [row.name for row in rows],
            "hovertemplate": f"%{{hovertext}}<br>{metric} %{{y:.1f}} %<br>%{{x:.4~g}} ms",
            **style,
        }

    front = points(
        compared.front,
        "front",
        mode="lines",
        line={"shape": "hv", "width": 2, "color": "--faint"},
        hoverinfo="skip",
    )
    traces = [{key: value for key, value in front.items() if key != "hovertemplate"}]
    for number, kind in enumerate(dict.fromkeys(row.kind for row in compared.rows)):
        rows = [row for row in compared.rows if row.kind == kind]
        own = kind == "winner"
        spreads = {
            "type": "data",
            "array": [100 * (row.deviation or 0.0) for row in rows],
            "width": 3,
            "thickness": 1.2,
        }
        traces.append(
            points(
                rows,
                kind,
                mode="markers+text" if own else "markers",
                text=[row.name for row in rows],
                textposition="top center",
                cliponaxis=False,
                error_y=spreads,
                marker={
                    "symbol": "star" if own else "circle",
                    "size": 16 if own else 9,
                    "color": "--good" if own else SERIES[number % len(SERIES)],
                },
            )
        )
    return Chart(
        f"{metric} against measured latency of all compared networks",
        traces,
        {
            "xaxis": {"title": {"text": f"median on {compared.device} (ms)"}},
            "yaxis": {"title": {"text": f"{metric} (%)"}},
        },
    )


def _upright(lines: Sequence[tuple[float, str]]) -> dict[str, Any]:
    """Vertical lines with words along their lower ends: above are winners' names and buttons."""
    shapes = [
        {
            "type": "line",
            **dict.fromkeys(("x0", "x1"), x),
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"dash": "dash", "width": 1.5, "color": "--warn"},
        }
        for x, _ in lines
    ]
    words = [
        {
            "x": x,
            "y": 0,
            "yref": "paper",
            "yanchor": "bottom",
            "xanchor": "right",
            "textangle": -90,
            "showarrow": False,
            "text": text,
            "font": {"color": "--warn", "size": 11},
        }
        for x, text in lines
    ]
    return {"shapes": shapes, "annotations": words}


def prediction_chart(device: DeviceFacts) -> Chart:
    """Predicted against measured latency of whole networks, with a band of ± 5 %."""
    found = device.networks
    ends = [0.9 * min(each.measured_ms for each in found), 1.1 * max(_largest(found))]
    band = {
        "type": "scatter",
        "x": [*ends, *ends[::-1]],
        "y": [0.95 * ends[0], 0.95 * ends[1], 1.05 * ends[1], 1.05 * ends[0]],
        "fill": "toself",
        "fillcolor": "--band",
        "line": {"width": 0},
        "mode": "lines",
        "name": "± 5 %",
        "hoverinfo": "skip",
    }
    equal = {
        "type": "scatter",
        "x": ends,
        "y": ends,
        "mode": "lines",
        "line": {"width": 1, "color": "--faint"},
        "name": "equal",
        "hoverinfo": "skip",
        "showlegend": False,
    }
    points = []
    for kind, (colour, symbol) in KIND_MARKS.items():
        of_kind = [each for each in found if each.kind == kind]
        if of_kind:
            points.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [each.measured_ms for each in of_kind],
                    "y": [each.predicted_ms for each in of_kind],
                    "text": [each.architecture for each in of_kind],
                    "customdata": [100 * (e.predicted_ms / e.measured_ms - 1) for e in of_kind],
                    "hovertemplate": "%{text}<br>measured %{x:.4~g} ms, predicted %{y:.4~g} ms "
                    "(%{customdata:+.1f} %)",
                    "marker": {
                        "size": 12 if symbol == "star" else 8,
                        "color": colour,
                        "symbol": symbol,
                    },
                }
            )
    return Chart(
        f"Predicted against measured latency on {device.spec.name}",
        [band, equal, *points],
        {
            "xaxis": {"title": {"text": "measured median (ms)"}},
            "yaxis": {"title": {"text": "predicted median (ms)"}},
        },
    )


def _largest(found: Sequence[NetworkPoint]) -> list[float]:
    return [max(each.measured_ms, each.predicted_ms) for each in found]


def effects_chart(effects: Sequence[ChoiceEffect]) -> Chart:
    """What each choice buys: difference of agreement against difference of latency."""
    traces = []
    for number, effect in enumerate(effects):
        values = effect.values
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": effect.choice,
                "x": [each.latency_ms for each in values],
                "y": [each.agreement for each in values],
                "text": [f"{effect.choice} {each.value}" for each in values],
                "error_y": {
                    "type": "data",
                    "array": [each.agreement_error for each in values],
                    "thickness": 1,
                    "width": 3,
                },
                "hovertemplate": "%{text}<br>agreement %{y:+.4f}, latency %{x:+.4~g} ms",
                "line": {"width": 2, "color": SERIES[number % len(SERIES)]},
                "marker": {"size": 7},
                "visible": True if number < len(SERIES) else "legendonly",
            }
        )
    return Chart(
        "Agreement and latency that each choice adds to its smallest value",
        traces,
        {
            "xaxis": {"title": {"text": "latency added (ms)"}, "zeroline": True},
            "yaxis": {"title": {"text": "agreement added"}, "zeroline": True},
        },
    )


def training_charts(training: TrainingFacts) -> list[Chart]:
    """Losses by epoch, and accuracies of the monitor where there are any."""
    loss = list(
        _curves(
            training,
            {
                "largest": [each["loss_largest"] for each in training.epochs],
                "smallest": [each["loss_smallest"] for each in training.epochs],
                "drawn at random": [each["loss_random"] for each in training.epochs],
            },
            "%{y:.4f}",
        )
    )
    charts = [Chart("Loss by epoch", loss, _by_epoch("loss"))]
    names = dict.fromkeys(name for each in training.epochs for name in each["monitor"])
    accuracies = {
        name.removeprefix("knn_"): [each["monitor"].get(name) for each in training.epochs]
        for name in names
    }
    if accuracies:
        layout = _by_epoch("kNN accuracy")
        layout["yaxis"]["tickformat"] = ".0%"
        lines = list(_curves(training, accuracies, "%{y:.1%}"))
        charts.append(Chart("kNN accuracy of held-out images by epoch", lines, layout))
    return charts


def _curves(
    training: TrainingFacts, values: dict[str, list[float | None]], form: str
) -> Iterator[dict[str, Any]]:
    epochs = [each["epoch"] for each in training.epochs]
    for number, (name, ys) in enumerate(values.items()):
        known = [(epoch, y) for epoch, y in zip(epochs, ys, strict=True) if y is not None]
        if known:
            yield {
                "type": "scatter",
                "mode": "lines+markers" if len(known) < 50 else "lines",
                "name": name,
                "x": [epoch for epoch, _ in known],
                "y": [y for _, y in known],
                "hovertemplate": f"epoch %{{x}}: {form}",
                "line": {"width": 2, "color": SERIES[number]},
                "marker": {"size": 5},
            }


def _by_epoch(figure: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": "epoch"}, "tickformat": "d"},
        "yaxis": {"title": {"text": figure}},
    }


def runs_chart(points: Sequence[tuple[str, str, float, float]], figure: str) -> Chart:
    """Winners of several runs: accuracy against measured latency.

    `points` are name of the run, name of the winner, latency in ms, and accuracy in 0 … 1.
    """
    runs = [*dict.fromkeys(run for run, *_ in points)]
    traces = []
    for number, name in enumerate(runs):
        own = [each for each in points if each[0] == name]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": name,
                "x": [ms for *_, ms, _ in own],
                "y": [accuracy for *_, accuracy in own],
                "text": [winner for _, winner, *_ in own],
                "textposition": "top center",
                "cliponaxis": False,
                "hovertemplate": "%{text}: %{y:.1%} at %{x:.4~g} ms",
                "marker": {"size": 11, "color": SERIES[number % len(SERIES)]},
            }
        )
    return Chart(
        f"{figure} of the winners against measured latency",
        traces,
        {
            "xaxis": {"title": {"text": "measured median (ms)"}},
            "yaxis": {"title": {"text": figure}, "tickformat": ".1%"},
        },
    )
