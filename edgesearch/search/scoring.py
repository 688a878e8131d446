"""The score of a search: on which images, on how many of them, and how sure its order is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from devices.files import write_json
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import DataError, SearchError
from edgesearch.events import Event, Report, silent
from edgesearch.processes.shared_work import SharedWork
from edgesearch.search.agreement import Agreement
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.files import SearchFiles
from edgesearch.search.images_needed import ImagesNeeded, ScoresOn, find_images_needed
from edgesearch.search.ranking import Ranking, settle
from edgesearch.search.settings import SearchSettings
from edgesearch.search.trial_log import Trial
from edgesearch.space import Architecture
from edgesearch.supernet.weights import SupernetWeights

FEWEST_IMAGES = 4
"""Below so many there are no correlations between images, and no intervals."""
PILOTS = 8
"""Candidates that find out how many images tell candidates apart."""


class Ranked(NamedTuple):
    """The trials within a budget, best first, and how sure the order of the best is."""

    trials: list[Trial]
    ranking: Ranking


def make_agreement(
    weights: SupernetWeights,
    pool: ImagePool,
    settings: SearchSettings,
    report: Report = silent,
) -> Agreement:
    """The score, on the images that follow those of the calibration if there are enough.

    Raises:
        DataError: There are hardly any images.
        SearchError: The supernet has no such features.
    """
    calibration, count, available = settings.calibration_images, settings.images, len(pool.train)
    if min(available, count) < FEWEST_IMAGES:
        raise DataError(
            f"at least {FEWEST_IMAGES} images to score candidates on",
            f"{available} in the domain, and search.images {count}",
            "Add images to the folder, or raise search.images.",
        )
    first = calibration
    if calibration + count > available:
        first, count = 0, min(count, available)
        few = (
            f"{available} images are fewer than search.calibration_images + search.images "
            f"({calibration + settings.images}): candidates are scored on {count} images that "
            "calibrate them, too; add images, or set both smaller"
        )
        report(Event("search", few))
    return Agreement(
        weights,
        images_at=lambda resolution, start, end: pool.sample(
            resolution, first, count, part=(start, end)
        ),
        calibration_at=lambda resolution: pool.sample(resolution, 0, calibration),
        batch_size=settings.batch_size,
        images=count,
        options=settings,
    )


class SharedScores:
    """The score of many candidates, each of them in one of the processes of a run.

    It is a `ScoresOn` in the first process; all others `help`. See `SharedWork`.

    Args:
        agreement: The score, the same in all processes.
    """

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._shared = SharedWork(self._scores, lambda item: agreement.weights.space.macs(item[0]))
        self.help, self.done = self._shared.help, self._shared.done

    def __call__(self, architectures: Sequence[Architecture], images: int) -> Iterator[Tensor]:
        """The figures of each candidate, in their order."""
        return self._shared([(architecture, images) for architecture in architectures])

    def _scores(self, items: Sequence[tuple[Architecture, int]]) -> Iterator[Tensor]:
        for images, part in groupby(items, key=itemgetter(1)):
            architectures = [architecture for architecture, _ in part]
            yield from self._agreement.all_scores(architectures, images)


def choose_images(
    agreement: Agreement,
    scores_on: ScoresOn,
    feasible: FeasibleSet,
    files: SearchFiles,
    score: Mapping[str, Any],
    seed: int,
    report: Report,
) -> None:
    """Let the search look at as many images as it takes to tell its candidates apart.

    Args:
        agreement: Gets the number; so far it has the largest.
        scores_on: Scores as it does.
        feasible: Some of these candidates are tried.
        files: Where the number is kept. A search that goes on keeps its number, and one that
            scores as a former one did takes over that one's.
        score: All that scores depend on.
        seed: Which candidates are tried.
        report: Is told what was found.
    """
    most = agreement.images
    path = files.images_needed
    found = _images_known([path, *files.former(path.name)], score)
    if found is None:
        chosen = np.random.default_rng(seed).permutation(feasible.indices)[:PILOTS]
        pilots = [feasible.space.architecture(int(index)) for index in chosen]
        found = find_images_needed(scores_on, pilots, agreement.batch_size, most)
    write_json(path, {**asdict(found), "score": dict(score)})
    agreement.images = min(found.images, most)
    known = "" if found.reliability is None else f" (reliability {found.reliability:.3f})"
    text = f"{agreement.images} of at most {most} images tell the candidates apart{known}"
    report(Event("search", text))


def _images_known(paths: Sequence[Path], score: Mapping[str, Any]) -> ImagesNeeded | None:
    wanted = json.loads(json.dumps(dict(score)))
    for path in paths:
        try:
            values = json.loads(path.read_bytes())
            if values.pop("score") == wanted:
                return ImagesNeeded(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # it is found out again
    return None


def settle_winners(
    scores_on: ScoresOn,
    feasible: FeasibleSet,
    trials: Sequence[Trial],
    settings: SearchSettings,
    first: int,
    most: int,
    report: Report,
) -> list[Ranked]:
    """Compare the best trials on more images until it is settled which of them are the winners.

    Args:
        scores_on: Scores them.
        feasible: Has the budgets; each has winners of its own.
        trials: All of a search, best first.
        settings: How many winners are wanted, and how many reserves are ranked with them.
        first: Images that they were scored on.
        most: Images at most.
        report: Is told what was found.

    Returns:
        For each budget the trials within it, the compared ones first and with what was found
        there; and the ranking.

    Raises:
        SearchError: No trial is within one of the budgets.
    """
    ranked = []
    for within in _trials_within(feasible, trials):
        count = max(settings.winners + settings.reserves, 2 * settings.winners)
        contenders = {trial.architecture: trial for trial in within[:count]}
        ranking = settle(scores_on, list(contenders), settings.winners, first=first, most=most)
        verdict = "settled" if ranking.settled else "not settled on as many as there may be"
        text = f"the best {len(contenders)} compared on {ranking.images} images: their order is "
        report(Event("search", text + verdict))
        compared = [
            replace(contenders[leader.architecture], agreement=leader.agreement.mean)
            for leader in ranking.leaders
        ]
        ranked.append(Ranked([*compared, *within[count:]], ranking))
    return ranked


def write_ranking(files: SearchFiles, ranked: Sequence[Ranked]) -> None:
    """Keep the rankings of all budgets, and the verdict over all of them."""
    rankings = [each.ranking for each in ranked]
    facts = {
        "images": max(ranking.images for ranking in rankings),
        "settled": all(ranking.settled for ranking in rankings),
        "rankings": [ranking.to_dict() for ranking in rankings],
    }
    write_json(files.ranking, facts)


def _trials_within(feasible: FeasibleSet, trials: Sequence[Trial]) -> list[list[Trial]]:
    """The trials within each budget."""
    parts = []
    for part in feasible.parts:
        within = [trial for trial in trials if trial.architecture in part]
        if not within:
            raise SearchError(
                f"a candidate within each of {len(feasible.parts)} budgets",
                f"none within search.budgets.latency_ms {part.budgets.latency_ms} among "
                f"{len(trials)} that were scored",
                "Set more search.evaluations.",
            )
        parts.append(within)
    return parts
