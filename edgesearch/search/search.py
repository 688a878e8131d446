"""A search: number of images, trials, ranking and winners."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

from torch import Tensor

from devices.files import write_json
from edgesearch.errors import Interrupted, SearchError
from edgesearch.events import Event, Report, silent
from edgesearch.processes.shared_work import SharedWork
from edgesearch.search.agreement import Agreement
from edgesearch.search.feasible import FeasibleSet
from edgesearch.search.files import SearchFiles
from edgesearch.search.images_needed import ImagesNeeded, ScoresOn, find_images_needed
from edgesearch.search.pareto import write_pareto
from edgesearch.search.ranking import Ranking, settle
from edgesearch.search.settings import SearchSettings
from edgesearch.search.strategies.strategy import Strategy, make_strategy
from edgesearch.search.trial_log import Trial, TrialLog
from edgesearch.search.winners import Winner, Winners
from edgesearch.space import Architecture
from edgesearch.training.allocator import memory_kept

PILOTS = 8
"""Candidates for choosing the number of images."""


class SharedScores:
    """Scores candidates in all processes of a run.

    The first process calls it as a `ScoresOn`; all others call `help`. See `SharedWork`.
    """

    def __init__(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self._shared = SharedWork(self._scores, lambda item: agreement.weights.space.macs(item[0]))
        self.help, self.done = self._shared.help, self._shared.done

    def __call__(self, architectures: Sequence[Architecture], images: int) -> Iterator[Tensor]:
        """Per-image scores of each candidate."""
        return self._shared([(architecture, images) for architecture in architectures])

    def _scores(self, items: Sequence[tuple[Architecture, int]]) -> Iterator[Tensor]:
        for images, part in groupby(items, key=itemgetter(1)):
            architectures = [architecture for architecture, _ in part]
            yield from self.agreement.all_scores(architectures, images)


@contextmanager
def says_where(files: SearchFiles) -> Iterator[None]:
    """Turn Ctrl-C into a message that says where the trials are."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"search stopped; its trials are in {files.trials}") from None


class Ranked(NamedTuple):
    """The trials within a budget, best first, and the ranking of the best."""

    trials: list[Trial]
    ranking: Ranking


@dataclass
class Search:
    """A search for the architectures of highest agreement within the budgets.

    Attributes:
        scores_on: Scores candidates.
        scored_with: Everything that affects scores.

    Raises:
        SearchError: The strategy is refused; see `make_strategy`.
    """

    feasible: FeasibleSet
    settings: SearchSettings
    files: SearchFiles
    scores_on: ScoresOn
    _: KW_ONLY
    first_images: int
    most_images: int
    scored_with: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    report: Report = silent
    strategy: Strategy = field(init=False)

    def __post_init__(self) -> None:
        self.strategy = make_strategy(self.feasible, self.settings, self.seed)

    @memory_kept()
    def run(self) -> Winners:
        """Make the trials, rank the best, and write all files. Logged trials are not scored again.

        Raises:
            Interrupted: Stopped by the user; the trials are kept.
            SearchError: No trial is within one of the budgets.
            FileError: A file cannot be written.
        """
        with says_where(self.files):
            images = self.choose_images()
            trials = self.make_trials(images.images)
            ranked = self.settle(trials, images.images)
        rankings = [each.ranking for each in ranked]
        facts = {
            "doubt": images.doubt,
            "images": max(ranking.images for ranking in rankings),
            "settled": all(ranking.settled for ranking in rankings),
            "rankings": [ranking.to_dict() for ranking in rankings],
        }
        write_json(self.files.ranking, facts)
        winners = self.choose(ranked)
        write_pareto(self.files, self.feasible, trials, winners)
        winners.save(self.files.chosen)
        return winners

    def choose_images(self) -> ImagesNeeded:
        """Number of images for scoring: as many as needed to distinguish candidates.

        A resumed search keeps its number; a search with the same scores as a former one reuses that
        number.
        """
        path = self.files.images_needed
        found = self._images_known()
        if found is None:
            pilots = list(islice(self.feasible.in_random_order(self.seed), PILOTS))
            found = find_images_needed(self.scores_on, pilots, self.first_images, self.most_images)
        write_json(path, {**asdict(found), "score": dict(self.scored_with)})
        found = replace(found, images=min(found.images, self.most_images))
        known = "" if found.reliability is None else f" (reliability {found.reliability:.3f})"
        self._tell(
            f"scoring on {found.images} of at most {self.most_images} images{known}", detail=True
        )
        return found

    def _images_known(self) -> ImagesNeeded | None:
        wanted = json.loads(json.dumps(dict(self.scored_with)))
        path = self.files.images_needed
        for each in (path, *self.files.former(path.name)):
            try:
                values = json.loads(each.read_bytes())
                if values.pop("score") == wanted:
                    return ImagesNeeded(**values)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # missing or damaged
        return None

    def make_trials(self, images: int) -> list[Trial]:
        """Ask the strategy and score its proposals, until there are enough trials; best first.

        Scores of former searches with the same `scored_with` are reused. Within a batch,
        architectures with a common prefix are scored one after the other.
        """
        evaluations, space = self.settings.evaluations, self.feasible.space
        log = TrialLog(self.files.trials, space, {**self.scored_with, "number of images": images})
        for former in self.files.former(self.files.trials.name):
            taken = log.adopt(former, self._tell)
            if taken:
                self._tell(f"reusing {taken} scores of a former search in {former.parent}")
        trials: list[Trial] = []
        while (left := evaluations - len(trials)) and (proposals := self.strategy.ask()):
            scores = {}
            batch = space.by_beginning(proposals[:left])
            new = iter(self.scores_on([each for each in batch if each not in log.trials], images))
            for architecture in batch:
                known = log.trials.get(architecture)
                agreement = float(next(new).mean()) if known is None else known.agreement
                if not math.isfinite(agreement):
                    raise SearchError(
                        "finite embeddings of every candidate",
                        f"an agreement of {agreement} for {architecture}",
                        "Train the supernet for longer, or choose a space of fewer layers.",
                    )
                trial = Trial(
                    architecture=architecture,
                    agreement=agreement,
                    latency_ms=self.feasible.cost("latency_ms", architecture),
                    macs=self.feasible.cost("macs", architecture),
                    params=self.feasible.cost("params", architecture),
                )
                if known is None:
                    log.add(trial)
                trials.append(trial)
                scores[architecture] = trial.agreement
                text = f"agreement {trial.agreement:.4f} at {trial.latency_ms:.3f} ms predicted"
                self._tell(text, len(trials), evaluations)
            if len(scores) == len(proposals):
                self.strategy.tell(scores)
        return sorted(trials, key=lambda trial: -trial.agreement)

    def settle(self, trials: Sequence[Trial], images: int) -> list[Ranked]:
        """Compare the best trials on more images until the order of the winners is settled.

        Returns:
            For each budget: the trials within it, the compared ones first with updated agreement,
                and the ranking.

        Raises:
            SearchError: No trial is within one of the budgets.
        """
        winners, ranked = self.settings.winners, []
        count = max(winners + self.settings.reserves, 2 * winners)
        for part in self.feasible.parts:
            within = [trial for trial in trials if trial.architecture in part]
            if not within:
                raise SearchError(
                    f"a candidate within each of {len(self.feasible.parts)} budgets",
                    f"none within search.budgets.latency_ms {part.budgets.latency_ms} among "
                    f"{len(trials)} that were scored",
                    "Set more search.evaluations.",
                )
            contenders = {trial.architecture: trial for trial in within[:count]}
            ranking = settle(
                self.scores_on, list(contenders), winners, first=images, most=self.most_images
            )
            verdict = "settled" if ranking.settled else "not settled on the maximum of images"
            best = f"the best {len(contenders)} candidates on {ranking.images} images"
            self._tell(f"order of {best}: {verdict}", detail=True)
            compared = [
                replace(contenders[leader.architecture], agreement=leader.agreement.mean)
                for leader in ranking.leaders
            ]
            ranked.append(Ranked([*compared, *within[count:]], ranking))
        return ranked

    def choose(self, ranked: Sequence[Ranked]) -> Winners:
        """The best trials within each budget, and the next ones as reserves."""
        chosen: list[Winner] = []
        kept: list[Winner] = []
        wanted = self.settings.winners
        for part, (trials, ranking) in zip(self.feasible.parts, ranked, strict=True):
            for trial in trials[:wanted]:
                chosen.append(Winner.of(f"w{len(chosen)}", trial, part, ranking))
            for trial in trials[wanted : wanted + self.settings.reserves]:
                kept.append(Winner.of(f"r{len(kept)}", trial, part, ranking))
        space = self.feasible.space
        return Winners(space.name, space.space_hash, tuple(chosen), tuple(kept), self.settings.task)

    def _tell(
        self,
        message: str,
        done: int | None = None,
        total: int | None = None,
        detail: bool = False,
    ) -> None:
        self.report(Event("search", message, done, total, detail=detail))
