"""NNI's tree-structured Parzen estimator.

The tuner is asked directly: NNI's strategy around it sleeps a second for each proposal.

Source: Bergstra et al., "Algorithms for hyper-parameter optimization" (NeurIPS 2011);
NNI 3.0, `nni.algorithms.hpo.tpe_tuner.TpeTuner`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgesearch.search.constraints import FeasibleSet
from edgesearch.search.strategies.fixed_order import FixedOrder
from edgesearch.search.strategies.nni_package import import_nni
from edgesearch.space import Architecture

PATIENCE = 50
"""Proposals in a row that are infeasible or known, after which one is drawn at random."""


class TPEStrategy:
    """TPE over the feasible architectures.

    Every choice is an unordered category to NNI. What it proposes outside of the feasible set is
    dropped and teaches it nothing.

    Args:
        feasible: What may be proposed.
        seed: Of everything random.
        batch: Architectures in each proposal; they count as good as the best until they are scored,
            as NNI does for trials that run at the same time.

    Raises:
        SearchError: NNI is not installed.
    """

    def __init__(self, feasible: FeasibleSet, seed: int, batch: int) -> None:
        tpe_tuner = import_nni("nni.algorithms.hpo.tpe_tuner", "tpe")
        self._feasible = feasible
        self._batch = batch
        self._tuner = tpe_tuner.TpeTuner(optimize_mode="maximize", seed=seed)
        self._tuner.update_search_space(
            {
                name: {"_type": "choice", "_value": list(values)}
                for name, values in feasible.space.choices.items()
            }
        )
        # NNI would take the next of a grid in place of what it has proposed before, however bad.
        self._tuner.dedup = lambda parameters: parameters
        order = np.random.default_rng(seed).permutation(feasible.indices)
        self._rest = FixedOrder(feasible.space, order, 1)
        self._asked: set[Architecture] = set()
        self._running: dict[Architecture, int] = {}
        self._number = 0

    def ask(self) -> tuple[Architecture, ...]:
        """See `Strategy`."""
        proposals: list[Architecture] = []
        for _ in range(self._batch):
            proposal = self._propose()
            if proposal is None:
                left = self._rest.next_batch(but=self._asked)
                if not left:
                    break
                (proposal,) = left
            self._asked.add(proposal)
            proposals.append(proposal)
        return tuple(proposals)

    def _propose(self) -> Architecture | None:
        """NNI's next proposal that is new and feasible; None if it comes to none."""
        if len(self._asked) == len(self._feasible.indices):
            return None
        for _ in range(PATIENCE):
            self._number += 1
            chosen = self._tuner.generate_parameters(self._number)
            proposal = self._feasible.space.from_choices(chosen)
            if proposal in self._feasible and proposal not in self._asked:
                self._running[proposal] = self._number
                return proposal
            self._tuner.trial_end(self._number, False)
        return None

    def tell(self, scores: Mapping[Architecture, float]) -> None:
        """See `Strategy`."""
        for proposal, number in self._running.items():
            self._tuner.receive_trial_result(number, None, scores[proposal])
        self._running = {}

    def close(self) -> None:
        """Nothing to give up."""
