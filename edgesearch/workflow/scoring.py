"""The score of a search: on which images, on how many of them, and how sure its order is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgesearch.errors import DataError
from edgesearch.search import (
    Agreement,
    FeasibleSet,
    ImagesNeeded,
    Ranking,
    ScoreOptions,
    Trial,
    find_images_needed,
    settle,
)
from edgesearch.space import Architecture
from edgesearch.supernet import SupernetWeights
from edgesearch.workflow.events import Event, Report, silent
from edgesearch.workflow.image_pool import ImagePool
from edgesearch.workflow.output_folder import read_json, write_json
from edgesearch.workflow.winners import Winners

if TYPE_CHECKING:
    from edgesearch.workflow.search import SearchImages

FEWEST_IMAGES = 4
"""Below so many there are no correlations between images, and no intervals."""
PILOTS = 8
"""Candidates that find out how many images tell candidates apart."""


def make_agreement(
    weights: SupernetWeights,
    pool: ImagePool,
    looked_at: SearchImages,
    options: ScoreOptions,
    report: Report = silent,
) -> Agreement:
    """The score, on the images that follow those of the calibration if there are enough.

    Raises:
        DataError: There are hardly any images.
        SearchError: The supernet has no such features.
    """
    calibration, count, available = looked_at.calibration_images, looked_at.images, len(pool.train)
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
            f"({calibration + looked_at.images}): candidates are scored on {count} images that "
            "calibrate them, too"
        )
        report(Event("search", few))
    return Agreement(
        weights,
        images_at=lambda resolution, start, end: pool.sample(
            resolution, first, count, part=(start, end)
        ),
        calibration_at=lambda resolution: pool.sample(resolution, 0, calibration),
        batch_size=looked_at.batch_size,
        images=count,
        options=options,
    )


def choose_images(
    agreement: Agreement, feasible: FeasibleSet, path: Path, seed: int, report: Report
) -> int:
    """Let the search look at as many images as it takes to tell its candidates apart.

    Args:
        agreement: Gets the number; so far it has the largest.
        feasible: Some of these candidates are tried.
        path: The number's file: a search that goes on keeps its number.
        seed: Which candidates are tried.
        report: Is told what was found.

    Returns:
        The number.
    """
    most = agreement.images
    if path.exists():
        found = ImagesNeeded(**read_json(path, "search"))
    else:
        chosen = np.random.default_rng(seed).permutation(feasible.indices)[:PILOTS]
        pilots = [feasible.space.architecture(int(index)) for index in chosen]
        found = find_images_needed(agreement.scores, pilots, agreement.batch_size, most)
        write_json(path, asdict(found))
    agreement.images = min(found.images, most)
    known = "" if found.reliability is None else f" (reliability {found.reliability:.3f})"
    text = f"{agreement.images} of at most {most} images tell the candidates apart{known}"
    report(Event("search", text))
    return agreement.images


def settle_winners(
    agreement: Agreement,
    trials: Sequence[Trial],
    winners: int,
    reserves: int,
    most: int,
    path: Path,
    report: Report,
) -> tuple[list[Trial], Ranking]:
    """Compare the best trials on more images until it is settled which of them are the winners.

    Args:
        agreement: What scored them.
        trials: All of a search, best first.
        winners: How many are wanted.
        reserves: How many more are ranked with them.
        most: Images at most.
        path: Gets the ranking.
        report: Is told what was found.

    Returns:
        The trials, the compared ones first and with what was found there; and the ranking.
    """
    count = max(winners + reserves, 2 * winners)
    contenders = {trial.architecture: trial for trial in trials[:count]}
    ranking = settle(agreement.scores, list(contenders), winners, first=agreement.images, most=most)
    write_json(path, ranking.to_dict())
    verdict = "settled" if ranking.settled else "not settled on as many as there may be"
    text = f"the best {len(contenders)} compared on {ranking.images} images: their order is "
    report(Event("search", text + verdict))
    ranked = [
        replace(contenders[leader.architecture], agreement=leader.agreement.mean)
        for leader in ranking.leaders
    ]
    return [*ranked, *trials[count:]], ranking


def with_intervals(chosen: Winners, ranking: Ranking) -> Winners:
    """Winners and reserves with the interval of their agreement, and the number of images."""
    intervals: dict[Architecture, tuple[float, float]] = {
        leader.architecture: (leader.agreement.low, leader.agreement.high)
        for leader in ranking.leaders
    }
    parts = (
        tuple(
            replace(
                winner,
                agreement_interval=intervals[winner.architecture],
                agreement_images=ranking.images,
            )
            for winner in part
        )
        for part in (chosen.winners, chosen.reserves)
    )
    winners, reserves = parts
    return replace(chosen, winners=winners, reserves=reserves)
