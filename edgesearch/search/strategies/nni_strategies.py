"""Strategies of NNI, asked for batches of proposals.

NNI's own loops submit trials to an engine and wait for events; here its algorithms are called
directly. NNI is imported when a strategy is created.

Source: Real et al., "Regularized evolution for image classifier architecture search" (AAAI 2019),
NNI 3.0, `nni.nas.strategy.RegularizedEvolution`; Bergstra et al., "Algorithms for hyper-parameter
optimization" (NeurIPS 2011), NNI 3.0, `nni.algorithms.hpo.tpe_tuner.TpeTuner`.
"""

from __future__ import annotations

import importlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from edgesearch.errors import SearchError
from edgesearch.search.feasible import FeasibleSet
from edgesearch.space import Architecture

MUTATION_PROBABILITY = 0.15
PATIENCE_IF_LARGE = 200
"""Limit on the patience in spaces that are not enumerated, where checks are slow."""


def import_nni(module: str, strategy: str) -> Any:
    """Import a module of NNI for a strategy, and silence its logging.

    Raises:
        SearchError: NNI is not installed.
    """
    # Without this NNI imports pytorch-lightning.
    os.environ.setdefault("NNI_FRAMEWORK", "none")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise SearchError(
            f"the package nni 3.0 for the strategy `{strategy}`",
            str(error),
            "Install it with: pip install nni==3.0",
        ) from error
    logging.getLogger("nni").setLevel(logging.CRITICAL)
    return imported


class _NNIStrategy(ABC):
    """Proposals of NNI; random ones if NNI finds nothing new and feasible for too long."""

    patience: int
    """Infeasible or known proposals in a row before a random one."""

    def __init__(self, feasible: FeasibleSet, seed: int, batch: int) -> None:
        self._feasible, self._batch = feasible, batch
        if feasible.count.drawn is not None:
            self.patience = min(self.patience, PATIENCE_IF_LARGE)
        self._random = feasible.in_random_order(seed)
        self._asked: set[Architecture] = set()

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        proposals: list[Architecture] = []
        while len(proposals) < self._batch and not self._feasible.are_at_most(len(self._asked)):
            proposal = self._propose(len(proposals))
            if proposal is None:
                proposal = next((a for a in self._random if a not in self._asked), None)
                if proposal is None:
                    break
            self._asked.add(proposal)
            proposals.append(proposal)
        return tuple(proposals)

    @abstractmethod
    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """See `Strategy`."""

    @abstractmethod
    def _propose(self, running: int) -> Architecture | None:
        """NNI's next new, feasible proposal or None; `running` counts proposals without scores."""


class EvolutionStrategy(_NNIStrategy):
    """Aging evolution over the feasible architectures.

    Raises:
        SearchError: NNI is not installed.
    """

    patience = 20_000

    def __init__(self, feasible: FeasibleSet, population: int, seed: int, batch: int) -> None:
        super().__init__(feasible, seed, min(batch, population))
        evolution = import_nni("nni.nas.strategy.evolution", "evolution")
        mutable = import_nni("nni.mutable", "evolution")
        self._individual = evolution.Individual
        self._nni = evolution.RegularizedEvolution(
            population_size=population,
            sample_size=max(1, population // 4),
            mutation_prob=MUTATION_PROBABILITY,
            seed=seed,
        )
        self._nni._model_space = mutable.MutableDict(
            {
                name: mutable.Categorical(list(values), label=name)
                for name, values in feasible.space.choices.items()
            }
        )

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """See `Strategy`."""
        for architecture in self._proposed:
            self._nni._population.append(self._individual(dict(architecture), scores[architecture]))
            if len(self._nni._population) > self._nni.population_size:
                self._nni._population.popleft()

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        self._proposed = super().ask()  # individuals age in this order
        return self._proposed

    def _propose(self, running: int) -> Architecture | None:
        is_first = len(self._nni._population) + running < self._nni.population_size
        draw = self._nni.random if is_first else self._nni.new_individual
        for _ in range(self.patience):
            chosen = self._nni._retry_helper.retry(draw)
            if chosen is None:
                break
            proposal = self._feasible.space.from_choices(chosen)
            if proposal in self._feasible and proposal not in self._asked:
                return proposal
        return None


class TPEStrategy(_NNIStrategy):
    """TPE over the feasible architectures.

    Every choice is an unordered category. Infeasible proposals of NNI are dropped without a score.
    Running architectures count as the best until scored, as NNI does for concurrent trials.

    Raises:
        SearchError: NNI is not installed.
    """

    patience = 50

    def __init__(self, feasible: FeasibleSet, seed: int, batch: int) -> None:
        super().__init__(feasible, seed, batch)
        tpe_tuner = import_nni("nni.algorithms.hpo.tpe_tuner", "tpe")
        self._nni = tpe_tuner.TpeTuner(optimize_mode="maximize", seed=seed)
        self._nni.update_search_space(
            {
                name: {"_type": "choice", "_value": list(values)}
                for name, values in feasible.space.choices.items()
            }
        )
        # NNI would replace a repeated proposal by the next point of a grid.
        self._nni.dedup = lambda parameters: parameters
        self._running: dict[Architecture, int] = {}
        self._number = 0

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """See `Strategy`."""
        for proposal, number in self._running.items():
            self._nni.receive_trial_result(number, None, scores[proposal])
        self._running = {}

    def _propose(self, running: int) -> Architecture | None:
        for _ in range(self.patience):
            self._number += 1
            proposal = self._feasible.space.from_choices(
                self._nni.generate_parameters(self._number)
            )
            if proposal in self._feasible and proposal not in self._asked:
                self._running[proposal] = self._number
                return proposal
            self._nni.trial_end(self._number, False)
        return None
