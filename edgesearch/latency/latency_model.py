"""The latency of every architecture of a space, from a table measured on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgesearch.latency.correction import Correction, fit_correction
from edgesearch.space import Architecture, Block, SearchSpace
from profilers import LatencyTable


@dataclass(frozen=True)
class LatencyPrediction:
    """What is predicted for one architecture.

    Attributes:
        median_ms: Predicted median of one run.
        p95_ms: Predicted 95th percentile.
    """

    median_ms: float
    p95_ms: float


class LatencyModel:
    """Predicts latencies: sums of block latencies, corrected by whole networks.

    Args:
        space: The search space.
        block_ms: Low quantile of each block by its key; NaN for one that the runtime cannot run.
        correction: From sums to whole networks.
    """

    def __init__(
        self, space: SearchSpace, block_ms: dict[str, float], correction: Correction
    ) -> None:
        self.space = space
        self.block_ms = block_ms
        self.correction = correction

    @classmethod
    def from_table(
        cls, space: SearchSpace, table: LatencyTable, correction: Correction | None = None
    ) -> LatencyModel:
        """Make the model from a table.

        Args:
            space: The search space.
            table: Holds every block of the space.
            correction: Made anew from the networks of the table if None.

        Raises:
            MissingKeyError: The table lacks a block.
            LatencyError: The table holds too few networks of the space.
        """
        errors = table.errors
        keys = {block.key for size in space.resolutions for block in space.distinct_blocks(size)}
        block_ms = {
            key: math.nan if key in errors else table.low_quantile_ms(key) for key in sorted(keys)
        }
        if correction is None:
            correction = _fit(space, table, block_ms)
        return cls(space, block_ms, correction)

    def predict(self, architecture: Architecture) -> LatencyPrediction:
        """The latency of one architecture; infinite if the runtime cannot run a block of it."""
        total = block_sum_ms(self.space.blocks(architecture), self.block_ms)
        median = float(self.correction.median_ms(np.array(total)))
        median = math.inf if math.isnan(median) else median
        return LatencyPrediction(median, median * self.correction.p95_ratio)

    def predict_all(self) -> np.ndarray:
        """Predicted medians of all architectures in ms, (size,), infinite where impossible."""
        sums = self.space.sum_over_blocks(lambda block: self.block_ms[block.key])
        return np.nan_to_num(self.correction.median_ms(sums), nan=math.inf)


def block_sum_ms(blocks: Sequence[Block], block_ms: dict[str, float]) -> float:
    """The sum of the latencies of some blocks."""
    return sum(block_ms[block.key] for block in blocks)


def _fit(space: SearchSpace, table: LatencyTable, block_ms: dict[str, float]) -> Correction:
    # What was measured again counts as measured last: the machine may have been busy before.
    latest = {Architecture.from_dict(n.architecture): n for n in table.networks(space.space_hash)}
    measured = list(latest.values())
    sums = [block_sum_ms(space.blocks(architecture), block_ms) for architecture in latest]
    # A network with a block that cannot run may have been measured all the same.
    networks = [n for n, total in zip(measured, sums, strict=True) if math.isfinite(total)]
    return fit_correction(
        np.array([total for total in sums if math.isfinite(total)]),
        np.array([network.median_ms for network in networks]),
        np.array([network.p95_ms for network in networks]),
    )
