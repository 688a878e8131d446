"""NNI's regularized evolution, asked one proposal at a time.

NNI's strategies own their loop and submit models to an execution engine. Here the loop runs in a
thread of its own, and the engine hands each model over to whoever asks: the two never run at the
same time.

Source: Real et al., "Regularized evolution for image classifier architecture search" (AAAI 2019);
NNI 3.0, `nni.nas.strategy.RegularizedEvolution`.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from typing import Any

from edgesearch.errors import SearchError
from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies.random_strategy import RandomStrategy
from edgesearch.space import Architecture, SearchSpace

MUTATION_PROBABILITY = 0.15
PATIENCE = 20_000
"""Infeasible proposals in a row after which NNI gives up."""


class EvolutionStrategy:
    """Aging evolution over the feasible architectures.

    NNI gives up when it meets nothing new and feasible for long; what is left is then proposed in
    random order.

    Args:
        feasible: Proposals outside of it are dropped by NNI's `Filter`.
        population: Individuals kept; the first ones are random.
        seed: Of everything random.

    Raises:
        SearchError: NNI is not installed.
    """

    def __init__(self, feasible: FeasibleSet, population: int, seed: int) -> None:
        self._proposals: queue.Queue[Architecture | BaseException | None] = queue.Queue()
        self._scores: queue.Queue[float | None] = queue.Queue()
        self._ended = False
        self._asked: set[Architecture] = set()
        self._rest = iter(RandomStrategy(feasible, seed).ask, None)
        strategy, model_space, engine = _nni_parts(self, feasible, population, seed)

        def loop() -> None:
            try:
                strategy(model_space, engine)
                self._proposals.put(None)
            except _Closed:
                pass
            except BaseException as error:  # handed to whoever asks
                self._proposals.put(error)

        self._thread = threading.Thread(target=loop, name="nni-evolution", daemon=True)
        self._started = False

    def ask(self) -> Architecture | None:
        """See `Strategy`."""
        proposal = None if self._ended else self._evolved()
        if proposal is None:
            return next((left for left in self._rest if left not in self._asked), None)
        self._asked.add(proposal)
        return proposal

    def _evolved(self) -> Architecture | None:
        """NNI's next proposal; None when it has given up."""
        if not self._started:
            self._started = True
            self._thread.start()
        proposal = self._proposals.get()
        if isinstance(proposal, BaseException):
            raise proposal
        self._ended = proposal is None
        return proposal

    def tell(self, architecture: Architecture, score: float) -> None:
        """See `Strategy`."""
        self._scores.put(score)

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        if self._started:
            self._scores.put(None)
            self._thread.join()

    def evaluate(self, architecture: Architecture) -> float:
        """Called by NNI's loop: hand a proposal over and wait for its score."""
        self._proposals.put(architecture)
        score = self._scores.get()
        if score is None:
            raise _Closed
        return score


class _Closed(Exception):
    """The strategy was closed while it waited for a score."""


def _import_nni() -> None:
    # Without this NNI imports pytorch-lightning, which it does not need here.
    os.environ.setdefault("NNI_FRAMEWORK", "none")
    try:
        import nni.nas.strategy  # noqa: F401
    except ImportError as error:
        raise SearchError(
            "the package nni 3.0 for the strategy `evolution`",
            str(error),
            "Install it with: pip install nni==3.0",
        ) from error
    logging.getLogger("nni").setLevel(logging.CRITICAL)


def _nni_parts(
    owner: EvolutionStrategy, feasible: FeasibleSet, population: int, seed: int
) -> tuple[Any, Any, Any]:
    """NNI's strategy behind its filter, the space in its terms, and an engine that asks `owner`."""
    _import_nni()
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.strategy import RegularizedEvolution
    from nni.nas.strategy.middleware import Chain, Filter

    space = feasible.space
    engine = SequentialExecutionEngine()
    evolution = RegularizedEvolution(
        population_size=population,
        sample_size=max(1, population // 4),
        mutation_prob=MUTATION_PROBABILITY,
        seed=seed,
    )
    within = Filter(
        lambda model: space.from_choices(model.sample) in feasible,
        patience=PATIENCE,
        retain_history=False,
    )
    return Chain(evolution, within), _model_space(owner, space, engine), engine


def _model_space(owner: EvolutionStrategy, space: SearchSpace, engine: Any) -> Any:
    """The space as NNI sees it; a frozen model is one architecture, run by asking `owner`."""
    from nni.mutable import Categorical, MutableDict
    from nni.nas.execution.event import FinalMetricEvent
    from nni.nas.space import ExecutableModelSpace, ModelStatus

    choices = MutableDict(
        {name: Categorical(list(values), label=name) for name, values in space.choices.items()}
    )

    class Model(ExecutableModelSpace):
        def __init__(self, status: Any = ModelStatus.Initialized) -> None:
            super().__init__(status)
            self.sample: dict[str, int] = {}

        def freeze(self, sample: dict[str, int]) -> Model:
            frozen = Model(ModelStatus.Frozen)
            frozen.sample = sample
            return frozen

        def check_contains(self, sample: dict[str, int]) -> Any:
            return choices.check_contains(sample)

        def leaf_mutables(self, is_leaf: Any) -> Any:
            return choices.leaf_mutables(is_leaf)

        def extra_repr(self) -> str:
            return str(self.sample)

        def execute(self) -> None:
            score = owner.evaluate(space.from_choices(self.sample))
            engine.dispatch_model_event(FinalMetricEvent(self, score))

    return Model()
