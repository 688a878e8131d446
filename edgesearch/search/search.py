"""A search in progress: on how many images it scores, its trials, and which of them win."""

from __future__ import annotations

import json
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

PILOTS = 8
"""Candidates that find out how many images tell candidates apart."""


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


@contextmanager
def says_where(files: SearchFiles) -> Iterator[None]:
    """Tell the user who stops a search where its trials are."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"search stopped; its trials are in {files.trials}") from None


class Ranked(NamedTuple):
    """The trials within a budget, best first, and how sure the order of the best is."""

    trials: list[Trial]
    ranking: Ranking


@dataclass
class Search:
    """A search for the architectures of highest agreement within the budgets.

    Attributes:
        feasible: What may be tried; has the budgets and the costs.
        settings: How many candidates, winners and reserves, and how they are proposed.
        files: The places of its files.
        scores_on: Scores candidates.
        first_images: Images to begin with, a batch.
        most_images: Images on which candidates are scored, at most.
        scored_with: All that scores depend on.
        seed: Of everything random.
        report: Is told what happens.
        strategy: Proposes candidates; the one that the settings name.

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
        """Make the strategy."""
        self.strategy = make_strategy(self.feasible, self.settings, self.seed)

    def run(self) -> Winners:
        """Make the trials, settle which of them are the best, and write all files.

        What the log knows is not scored again.

        Raises:
            Interrupted: Stopped by the user; the trials are kept.
            SearchError: No trial is within one of the budgets.
            StageError: A file cannot be written.
        """
        with says_where(self.files):
            images = self.choose_images()
            trials = self.make_trials(images)
            ranked = self.settle(trials, images)
        rankings = [each.ranking for each in ranked]
        facts = {
            "images": max(ranking.images for ranking in rankings),
            "settled": all(ranking.settled for ranking in rankings),
            "rankings": [ranking.to_dict() for ranking in rankings],
        }
        write_json(self.files.ranking, facts)
        winners = self.choose(ranked)
        write_pareto(self.files, self.feasible, trials, winners)
        winners.save(self.files.chosen)
        return winners

    def choose_images(self) -> int:
        """On how many images candidates are scored: as many as it takes to tell them apart.

        A search that goes on keeps its number, and one that scores as a former one did takes over
        that one's.
        """
        path = self.files.images_needed
        found = self._images_known()
        if found is None:
            pilots = list(islice(self.feasible.in_random_order(self.seed), PILOTS))
            found = find_images_needed(self.scores_on, pilots, self.first_images, self.most_images)
        write_json(path, {**asdict(found), "score": dict(self.scored_with)})
        images = min(found.images, self.most_images)
        known = "" if found.reliability is None else f" (reliability {found.reliability:.3f})"
        self._tell(
            f"{images} of at most {self.most_images} images tell the candidates apart{known}"
        )
        return images

    def _images_known(self) -> ImagesNeeded | None:
        wanted = json.loads(json.dumps(dict(self.scored_with)))
        path = self.files.images_needed
        for each in (path, *self.files.former(path.name)):
            try:
                values = json.loads(each.read_bytes())
                if values.pop("score") == wanted:
                    return ImagesNeeded(**values)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # it is found out again
        return None

    def make_trials(self, images: int) -> list[Trial]:
        """Ask the strategy, score, keep and tell, until there are enough trials; best first.

        Scores of former searches that were set aside, which depend on the same, are taken over.
        Architectures of a batch that begin alike are scored one after the other.
        """
        evaluations, space = self.settings.evaluations, self.feasible.space
        log = TrialLog(self.files.trials, space, {**self.scored_with, "number of images": images})
        for former in self.files.former(self.files.trials.name):
            taken = log.adopt(former)
            if taken:
                self._tell(f"{taken} scores of a former search are taken over from {former.parent}")
        trials: list[Trial] = []
        while (left := evaluations - len(trials)) and (proposals := self.strategy.ask()):
            scores = {}
            batch = space.by_beginning(proposals[:left])
            new = iter(self.scores_on([each for each in batch if each not in log.trials], images))
            for architecture in batch:
                known = log.trials.get(architecture)
                trial = Trial(
                    architecture=architecture,
                    agreement=float(next(new).mean()) if known is None else known.agreement,
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
        """Compare the best trials on more images until it is settled which of them win.

        Args:
            trials: All of the search, best first.
            images: On how many they were scored.

        Returns:
            For each budget the trials within it, the compared ones first and with what was found
            there; and the ranking.

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
            verdict = "settled" if ranking.settled else "not settled on as many as there may be"
            self._tell(
                f"the best {len(contenders)} compared on {ranking.images} images: their order is "
                f"{verdict}"
            )
            compared = [
                replace(contenders[leader.architecture], agreement=leader.agreement.mean)
                for leader in ranking.leaders
            ]
            ranked.append(Ranked([*compared, *within[count:]], ranking))
        return ranked

    def choose(self, ranked: Sequence[Ranked]) -> Winners:
        """The best trials within each budget, and those that are next in rank."""
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

    def _tell(self, message: str, done: int | None = None, total: int | None = None) -> None:
        self.report(Event("search", message, done, total))
