"""The result of a comparison, as a table and as a picture."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from devices.files import write_bytes
from edgesearch.compare.standing import Difference
from edgesearch.inputs import read_json
from edgesearch.pictures import picture

RESULTS, TABLE, PLOT = "results.json", "compare.csv", "compare.png"


@dataclass(frozen=True)
class ComparedRow:
    """A network of the comparison.

    Attributes:
        kind: Winner, end (of the space), scaled, random or baseline.
        beginning: Its weights before the training: of the supernet, public or random.
        values: The metric (0 … 1) on the test images after each training, by seed.
        latency_ms: Measured median of the whole network, with `interval_ms`; and the 95th
            percentile.
        size_bytes: Of the file that was measured.
        int8_metric: Of the first training, in int8; None if that was not asked for, or failed.
        on_front: Whether no other network is both as fast and as good.
        ahead: Of the first winner: points by which it is ahead of this one (0 … 1), and half the
            interval; None for itself.
    """

    name: str
    kind: str
    architecture: str | None
    resolution: int
    beginning: str
    values: tuple[float, ...]
    mean: float
    deviation: float | None
    latency_ms: float
    interval_ms: tuple[float, float]
    p95_ms: float
    params: int
    size_bytes: int
    int8_metric: float | None
    int8_latency_ms: float | None
    on_front: bool
    ahead: Difference | None


@dataclass(frozen=True)
class CompareResult:
    """Result of `compare`.

    Attributes:
        metric: Name of the figure that decides.
        verdicts: A few sentences for each winner.
        same: Names of candidates that are the same network as another one, with its name.
        left_out: Names of candidates that could not be compared, with the reason.
        doubt: Why the latencies cannot be trusted; empty otherwise.
        duration_s: Sum of the durations of all trainings.
    """

    task: str
    head: str
    metric: str
    device: str
    precision: str
    seeds: int
    epochs: int
    train_images: int
    test_images: int
    rows: tuple[ComparedRow, ...]
    verdicts: tuple[str, ...]
    same: dict[str, str]
    left_out: dict[str, str]
    doubt: str
    duration_s: float
    results_path: Path
    table_path: Path
    plot_path: Path

    @property
    def front(self) -> list[ComparedRow]:
        """The rows on the front, fastest first."""
        return sorted((row for row in self.rows if row.on_front), key=lambda row: row.latency_ms)


def read_compared(folder: Path) -> CompareResult | None:
    """The finished comparison in a folder; None if there is none.

    Raises:
        StageError: Its file is damaged.
    """
    path = folder / RESULTS
    if not path.exists():
        return None
    values = read_json(path, "compare")
    rows = []
    for row in values.pop("rows"):
        ahead = None if row["ahead"] is None else Difference(**row["ahead"])
        rows.append(ComparedRow(**{**row, "values": tuple(row["values"]), "ahead": ahead}))
    return CompareResult(
        **{**values, "verdicts": tuple(values["verdicts"])},
        rows=tuple(rows),
        results_path=path,
        table_path=folder / TABLE,
        plot_path=folder / PLOT,
    )


_COLUMNS = (
    "name",
    "kind",
    "architecture",
    "resolution",
    "beginning",
    "mean",
    "deviation",
    "latency_ms",
    "p95_ms",
    "params",
    "size_bytes",
    "int8_metric",
    "int8_latency_ms",
    "on_front",
)


def write_csv(result: CompareResult) -> None:
    """Write a line for each network; an empty field where there is no figure.

    Raises:
        FileError: The file cannot be written.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    further = ("latency_low_ms", "latency_high_ms", "winner_ahead", "winner_ahead_half")
    lines.writerow([*_COLUMNS, *further, *(f"training{n + 1}" for n in range(result.seeds))])
    for row in result.rows:
        ahead = (None, None) if row.ahead is None else (row.ahead.mean, row.ahead.half)
        own = (getattr(row, name) for name in _COLUMNS)
        lines.writerow([*own, *row.interval_ms, *ahead, *row.values])
    write_bytes(result.table_path, text.getvalue().encode())


def plot(result: CompareResult) -> None:
    """Plot metric against latency, with the front as a line.

    Raises:
        FileError: The file cannot be written.
    """
    colours = {"winner": "C3", "end": "0.4", "scaled": "C2", "random": "C0", "baseline": "C1"}
    with picture(result.plot_path, 8, 5.5) as figure:
        axes = figure.subplots()
        front = result.front
        axes.plot(
            [row.latency_ms for row in front],
            [100 * row.mean for row in front],
            color="0.7",
            drawstyle="steps-post",
            zorder=1,
            label="front",
        )
        named = set()
        for row in result.rows:
            spread = None if row.deviation is None else 100 * row.deviation
            axes.errorbar(
                [row.latency_ms],
                [100 * row.mean],
                yerr=spread,
                fmt="o",
                color=colours[row.kind],
                label=None if row.kind in named else row.kind,
            )
            named.add(row.kind)
            if row.kind == "random":  # the legend says what they are
                continue
            axes.annotate(
                row.name,
                (row.latency_ms, 100 * row.mean),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set(
            xlabel=f"latency on {result.device} in ms ({result.precision}, median)",
            ylabel=f"{result.metric.replace('_', ' ')} in % ({result.seeds} training(s) each)",
            title=f"{result.task}, head {result.head}",
        )
        axes.margins(x=0.12)
        axes.legend(loc="lower right")
