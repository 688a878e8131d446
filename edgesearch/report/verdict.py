"""The verdict on a run: what was asked for, what was found, and what to doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgesearch.report.run_facts import RunFacts
from edgesearch.report.task_facts import title_of
from edgesearch.report.winner_facts import WinnerFacts
from edgesearch.report.words import ms, percent

STATUS = {
    "within": "good",
    "within its interval": "warn",
    "over": "bad",
    "predicted": "warn",
}
"""How the verdict on a winner is coloured."""


@dataclass(frozen=True)
class Mark:
    """A place on the scale of a gauge; `share` in 0 … 1 of its length."""

    name: str
    latency_ms: float
    share: float
    kind: str


@dataclass(frozen=True)
class Verdict:
    """The verdict on a winner, or on a run without any.

    Attributes:
        status: "good", "warn", "bad" or "none".
        facts: Sentences.
        doubts: Sentences on what should not be trusted.
        figures: Names and values of the main figures.
        gauge: Latencies on one scale.
    """

    status: str
    headline: str
    facts: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    gauge: tuple[Mark, ...] = ()


def verdicts(run: RunFacts) -> list[Verdict]:
    """One for each winner, or one that says what there is instead."""
    if not run.winners:
        return [Verdict("none", "There is no winner yet.", tuple(_begun(run)), tuple(_doubts(run)))]
    common = tuple(_doubts(run))
    found = []
    for number, winner in enumerate(run.winners):
        found.append(
            Verdict(
                status=STATUS[winner.verdict],
                headline=_headline(run, winner),
                facts=tuple(_facts(run, winner)),
                doubts=common if number == 0 else (),
                figures=tuple(_figures(run, winner)),
                gauge=tuple(_gauge(run, winner)),
            )
        )
    return found


def _headline(run: RunFacts, winner: WinnerFacts) -> str:
    figures, name = winner.figures, winner.winner.name
    budget = figures["budget"]
    if winner.verdict == "predicted":
        bound = "" if budget is None else f" (budget {ms(budget)})"
        predicted = ms(figures["predicted"])
        return f"{name} is predicted to take {predicted} on {run.device}{bound}; not measured yet."
    text = f"{name} takes {ms(figures['measured_p50'])} on {run.device}"
    bounds = [
        f"{ms(figures[key])}{words}"
        for key, words in (("budget", ""), ("budget_p95", " for the 95th percentile"))
        if figures[key] is not None
    ]
    if not bounds:
        return f"{text}. No latency budget was set."
    relation = {
        "within": "within the budget of",
        "within its interval": "at the edge of the budget of",
        "over": "over the budget of",
    }[winner.verdict]
    return f"{text}, {relation} {' and '.join(bounds)}."


def _facts(run: RunFacts, winner: WinnerFacts) -> Iterator[str]:
    figures, rows = winner.figures, {row["name"]: row for row in run.summary}
    if figures["latency_of"] != "backbone":
        yield f"Latencies and budgets are those of the {figures['latency_of']}."
    if "interval" in figures:
        low, high = figures["interval"]
        if winner.verdict == "within its interval":
            yield f"The measured median lies between {ms(low)} and {ms(high)}."
        error = figures["predicted"] / figures["measured_p50"] - 1
        way = "low" if error < 0 else "high"
        yield (
            f"The prediction was {ms(figures['predicted'])}, {percent(abs(error))} too {way}. "
            f"95 % of the runs take at most {ms(figures['measured_p95'])}."
        )
    largest, own = rows.get("largest"), rows.get(f"winner {winner.winner.name}")
    if largest and own and (ratio := _speed(own, largest)):
        yield f"It is {ratio:.2f} times as fast as the largest network of the space."
    if own and own["knn"] is not None:
        others = [
            f"{words} {percent(rows[name]['knn'])}"
            for name, words in (
                ("largest", "largest network"),
                ("largest, random weights", "random weights"),
                ("raw pixels", "raw pixels"),
            )
            if name in rows
        ]
        yield f"kNN accuracy of its features is {percent(own['knn'])} ({', '.join(others)})."
    if run.compared is not None:
        name = winner.winner.name
        yield from (text for text in run.compared.verdicts if text.startswith(f"{name} is "))
    if count := len(winner.winner.replaced):
        were = "candidate was" if count == 1 else "candidates were"
        yield f"{count} {were} ranked before it, measured over the budget, and replaced."


def _speed(own: dict[str, Any], largest: dict[str, Any]) -> float | None:
    """How many times as fast a network is, by measurements, or by predictions if one lacks them."""
    for key in ("measured_ms", "predicted_ms"):
        if own[key] and largest[key]:
            return float(largest[key] / own[key])
    return None


def _doubts(run: RunFacts) -> Iterator[str]:
    for name, device in run.devices.items():
        if not device.steadiness.settled:
            yield f"Latency table of {name}: {device.steadiness.of_table}."
    rows = {row["name"]: row["knn"] for row in run.summary}
    pixels = rows.get("raw pixels")
    best = max((rows[n] for n in rows if n.startswith("winner") and rows[n]), default=None)
    if pixels is not None and best is not None and pixels >= best:
        yield (
            "Raw pixels are classified as well as the features of the winners. On images this "
            "simple, kNN does not show what the features are worth."
        )
    if run.search is not None:
        if run.search.training_doubt:
            text = run.search.training_doubt
            yield f"{text[0].upper()}{text[1:]}."
        if run.search.settled is False:
            yield (
                f"{run.search.images:,} images do not separate the best candidates by agreement: "
                "another may be as good."
            )


def _figures(run: RunFacts, winner: WinnerFacts) -> Iterator[tuple[str, str]]:
    figures, rows = winner.figures, {row["name"]: row for row in run.summary}
    if "interval" in figures:
        yield "measured median", ms(figures["measured_p50"])
        yield "95th percentile", ms(figures["measured_p95"])
    yield "predicted", ms(figures["predicted"])
    if figures["budget"] is not None:
        yield "budget", ms(figures["budget"])
    if figures["budget_p95"] is not None:
        yield "budget, 95th percentile", ms(figures["budget_p95"])
    yield "agreement", f"{winner.winner.agreement:.4f}"
    if run.task is not None:
        for network in run.task.networks:
            if network.about["architecture"] == str(winner.winner.architecture):
                yield title_of(run.task.metric), percent(network.figures[run.task.metric])
    row = rows.get(f"winner {winner.winner.name}")
    if row and row["knn"] is not None:
        yield "kNN accuracy", percent(row["knn"])


def _gauge(run: RunFacts, winner: WinnerFacts) -> Iterator[Mark]:
    figures, rows = winner.figures, {row["name"]: row for row in run.summary}
    marks = []
    for name in ("smallest", "largest"):
        latency_ms = rows.get(name, {}).get("measured_ms") or rows.get(name, {}).get("predicted_ms")
        if latency_ms:
            marks.append((name, latency_ms, "end"))
    marks.append((winner.winner.name, figures.get("measured_p50") or figures["predicted"], "own"))
    if "interval" in figures:
        marks.append(("95th percentile", figures["measured_p95"], "p95"))
    highest = max(latency_ms for _, latency_ms, _ in marks)
    if figures["budget"] is not None and figures["budget"] <= 2 * highest:
        marks.append(("budget", figures["budget"], "budget"))
    if len(marks) < 2:
        return
    highest = 1.05 * max(latency_ms for _, latency_ms, _ in marks)
    for name, latency_ms, kind in sorted(marks, key=lambda mark: mark[1]):
        yield Mark(name, latency_ms, latency_ms / highest, kind)


def _begun(run: RunFacts) -> Iterator[str]:
    """What an unfinished run has."""
    if run.devices:
        yield f"Latencies were measured on {', '.join(run.devices)}."
    if run.training is not None and run.training.epochs:
        yield f"The supernet was trained for {len(run.training.epochs)} epochs."
    if run.search is not None:
        best = run.search.trials[0]
        yield (
            f"{len(run.search.trials)} candidates were scored; the best so far is "
            f"{best.architecture} with agreement {best.agreement:.4f}, predicted at "
            f"{ms(best.latency_ms)}."
        )
