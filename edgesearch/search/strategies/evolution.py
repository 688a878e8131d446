"""NNI's regularized evolution, asked for a batch of proposals at a time.

NNI's strategies own their loop and submit models to an execution engine. Here the loop runs in a
thread of its own, and the engine hands models over to whoever asks: the two never run at the same
time.

Source: Real et al., "Regularized evolution for image classifier architecture search" (AAAI 2019);
NNI 3.0, `nni.nas.strategy.RegularizedEvolution`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies.fixed_order import FixedOrder
from edgesearch.search.strategies.nni_package import import_nni
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
        batch: Architectures in each proposal; no more than the population.

    Raises:
        SearchError: NNI is not installed.
    """

    def __init__(self, feasible: FeasibleSet, population: int, seed: int, batch: int) -> None:
        self._proposals: queue.Queue[tuple[Architecture, ...] | BaseException] = queue.Queue()
        self._scores: queue.Queue[Mapping[Architecture, float] | None] = queue.Queue()
        self._ended = False
        self._asked: set[Architecture] = set()
        order = np.random.default_rng(seed).permutation(feasible.indices)
        self._rest = FixedOrder(feasible.space, order, batch)
        strategy, model_space, engine = _nni_parts(
            self, feasible, population, seed, min(batch, population)
        )

        def loop() -> None:
            try:
                strategy(model_space, engine)
                engine.wait_models()
                self._proposals.put(())
            except _Closed:
                pass
            except BaseException as error:  # handed to whoever asks
                self._proposals.put(error)

        self._thread = threading.Thread(target=loop, name="nni-evolution", daemon=True)
        self._started = False

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        proposals = () if self._ended else self._evolved()
        if not proposals:
            return self._rest.next_batch(but=self._asked)
        self._asked.update(proposals)
        return proposals

    def _evolved(self) -> tuple[Architecture, ...]:
        """NNI's next proposals; none when it has given up."""
        if not self._started:
            self._started = True
            self._thread.start()
        proposals = self._proposals.get()
        if isinstance(proposals, BaseException):
            raise proposals
        self._ended = not proposals
        return proposals

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """See `Strategy`."""
        if not self._ended:
            self._scores.put(scores)

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        if self._started:
            self._scores.put(None)
            self._thread.join()

    def evaluate(self, proposals: tuple[Architecture, ...]) -> Mapping[Architecture, float]:
        """Called by NNI's loop: hand proposals over and wait for their scores."""
        self._proposals.put(proposals)
        scores = self._scores.get()
        if scores is None:
            raise _Closed
        return scores


class _Closed(Exception):
    """The strategy was closed while it waited for a score."""


def _nni_parts(
    owner: EvolutionStrategy, feasible: FeasibleSet, population: int, seed: int, batch: int
) -> tuple[Any, Any, Any]:
    """NNI's strategy behind its filter, the space in its terms, and an engine that asks `owner`."""
    import_nni("nni.nas.strategy", "evolution")
    from nni.nas.strategy import RegularizedEvolution
    from nni.nas.strategy.middleware import Chain, Filter

    space = feasible.space
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
    return Chain(evolution, within), _model_space(space), _engine(owner, space, batch)


def _engine(owner: EvolutionStrategy, space: SearchSpace, batch: int) -> Any:
    """NNI's view of whoever asks: a machine that runs so many models at a time."""
    from nni.nas.execution import ExecutionEngine
    from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
    from nni.nas.space import ModelStatus

    class Engine(ExecutionEngine):
        """Keeps what is submitted until it is a batch, then has it scored."""

        def __init__(self) -> None:
            super().__init__()
            self.waiting: list[Any] = []

        def submit_models(self, *models: Any) -> None:
            for model in models:
                self.waiting.append(model)
                if len(self.waiting) == batch:
                    self.wait_models()

        def wait_models(self, *models: Any) -> None:
            running, self.waiting = self.waiting, []
            if not running:
                return
            proposals = [space.from_choices(model.sample) for model in running]
            scores = owner.evaluate(tuple(proposals))
            for model, proposal in zip(running, proposals, strict=True):
                self.dispatch_model_event(FinalMetricEvent(model, scores[proposal]))
                self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))

        def list_models(self, status: Any = None) -> list[Any]:
            return [model for model in self.waiting if status in (None, model.status)]

        def idle_worker_available(self) -> bool:
            return True

        def budget_available(self) -> bool:
            return True

        def shutdown(self) -> None:
            """Nothing runs."""

    return Engine()


def _model_space(space: SearchSpace) -> Any:
    """The space as NNI sees it; a frozen model is one architecture."""
    from nni.mutable import Categorical, MutableDict
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

    return Model()
