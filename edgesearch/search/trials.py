"""The trials of a search: made, logged and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from edgesearch.errors import Interrupted
from edgesearch.events import Event, Report
from edgesearch.search.agreement import Agreement
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.files import SearchFiles
from edgesearch.search.images_needed import ScoresOn
from edgesearch.search.scoring import (
    Ranked,
    SharedScores,
    choose_images,
    settle_winners,
    write_ranking,
)
from edgesearch.search.search import run_search
from edgesearch.search.settings import SearchSettings
from edgesearch.search.strategies import Strategy
from edgesearch.search.trial_log import Trial, TrialLog
from edgesearch.space import Architecture, SearchSpace


@contextmanager
def says_where(files: SearchFiles) -> Iterator[None]:
    """Tell the user who stops a search where its trials are."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"search stopped; its trials are in {files.trials}") from None


def find_trials(
    scorer: Agreement,
    feasible: FeasibleSet,
    strategy: Strategy,
    score: Mapping[str, Any],
    settings: SearchSettings,
    seed: int,
    files: SearchFiles,
    report: Report,
) -> tuple[list[Trial], list[Ranked]]:
    """Find out how many images it takes, make the trials, and settle which of them are the best.

    What the log knows is not scored again.

    Args:
        scorer: The score, on as many images as there may be.
        feasible: What may be tried.
        strategy: Proposes what is tried.
        score: All that scores depend on.
        settings: The numbers of trials, winners and reserves.
        seed: Which candidates find out about the images.
        files: Where the log is.
        report: Is told what happens.

    Returns:
        All trials, best first; and those within each budget with the ranking of the best.

    Raises:
        Interrupted: Stopped by the user; the trials are kept.
    """
    scores, most = SharedScores(scorer), scorer.images
    with says_where(files):
        choose_images(scorer, scores, feasible, files, score, seed, report)
        log = _log(feasible.space, files, {**score, "number of images": scorer.images}, report)
        trials = _trials(
            feasible, strategy, scores, scorer.images, log, settings.evaluations, report
        )
        ranked = settle_winners(scores, feasible, trials, settings, scorer.images, most, report)
        write_ranking(files, ranked)
        scores.done()
    return trials, ranked


def _log(
    space: SearchSpace, files: SearchFiles, identity: Mapping[str, Any], report: Report
) -> TrialLog:
    """The log of a search, with the scores of former ones that were set aside.

    Those that depend on the same: where only budgets or the strategy have changed, nothing is
    scored twice.
    """
    log = TrialLog(files.trials, space, identity)
    for former in files.former(files.trials.name):
        taken = log.adopt(former)
        if taken:
            text = f"{taken} scores of a former search are taken over from {former.parent}"
            report(Event("search", text))
    return log


def _trials(
    feasible: FeasibleSet,
    proposer: Strategy,
    scores_on: ScoresOn,
    images: int,
    log: TrialLog,
    evaluations: int,
    report: Report,
) -> list[Trial]:
    """The trials of a search, best first; those that the log knows are not made again."""

    def agreements(architectures: Sequence[Architecture]) -> Iterator[float]:
        return (float(figures.mean()) for figures in scores_on(architectures, images))

    def tell(number: int, trial: Trial) -> None:
        text = f"agreement {trial.agreement:.4f} at {trial.latency_ms:.3f} ms predicted"
        report(Event("search", text, number, evaluations))

    return run_search(feasible, proposer, agreements, log, evaluations, tell)
