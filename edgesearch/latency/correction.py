"""Correction from sums of block latencies to latencies of whole networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgesearch.errors import LatencyError
from edgesearch.latency.fits import best_form, finite_fields

MIN_NETWORKS = 6
"""Fewest networks for a fit, where the space has as many that can run."""


@dataclass(frozen=True)
class BlockSums:
    """Sums over the blocks of each network.

    Attributes:
        warm_ms: (N,) latencies with weights in the caches.
        cold_ms: (N,) latencies with weights in memory; None if unknown.
        blocks: (N,) numbers of blocks.
        params: (N,) numbers of parameters.
    """

    warm_ms: np.ndarray
    cold_ms: np.ndarray | None
    blocks: np.ndarray
    params: np.ndarray


@dataclass(frozen=True)
class Correction:
    """Linear model from the sum over blocks to the median of the whole network.

    Blocks are summed as low quantiles, which are nearly additive. A network has costs beyond its
    blocks. A block measured alone has a fixed cost that it lacks inside a network, and its weights
    are in the caches, where those of a whole network have no room. These costs are fitted by least
    squares on the low quantiles of a few whole networks. The ratio of median to low quantile
    depends on the machine, not on the network: it is one factor for all, contained in the
    coefficients. (A fit to medians would take their noise for properties of the networks.) The
    terms in use, and warm or cold block latencies, are selected by leave-one-out error: networks
    that fit into the caches behave like warm blocks, larger ones like cold blocks.

    Attributes:
        offset_ms: Cost of a network beyond its blocks.
        scale: Factor on the sum of the blocks.
        per_block_ms: Cost per block; below 0 where a block alone costs more than inside a network.
        cold: Whether the block latencies are those with cold caches.
        p95_ratio: Ratio of 95th percentile to median (quantiles are not additive).
        networks: Number of fitted networks.
        fit_mape: Mean absolute relative error of the fit, on low quantiles.
        loo_mape: Leave-one-out error; slightly optimistic, since it also selects the form of the
            fit. None for a single network.
        median_ratio: Ratio of median to low quantile over whole networks.
        per_million_params_ms: Cost per million parameters, whose weights come from memory.
    """

    offset_ms: float
    scale: float
    p95_ratio: float
    networks: int
    fit_mape: float
    per_block_ms: float
    cold: bool
    loo_mape: float | None
    median_ratio: float
    per_million_params_ms: float = 0.0

    def block_cost_ms(self, latency_ms: float, params: int) -> float:
        """Cost of a block inside a network, at least 0, from its latency alone (warm or cold)."""
        weights_ms = self.per_million_params_ms * params / _MILLION
        return max(0.0, self.scale * latency_ms + self.per_block_ms + weights_ms)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Correction:
        """Read the result of `dataclasses.asdict`.

        Raises:
            ValueError: A value is of the wrong kind.
            KeyError: A value is missing.
        """
        return cls(**finite_fields(cls.__dataclass_fields__, values))


def fit_correction(
    sums: BlockSums,
    lows_ms: np.ndarray,
    *,
    median_ratio: float,
    p95_ratio: float,
    fewest: int = MIN_NETWORKS,
) -> Correction:
    """Least-squares fit of the relative errors, in the form with the smallest leave-one-out error.

    `lows_ms` are measured low quantiles (N,); the ratios are defined as in `Correction`. A form has
    fewer coefficients than there are networks, unless there is only one.

    Raises:
        LatencyError: There are fewer than `fewest` networks, or the blocks took no time.
    """
    count = len(lows_ms)
    if count < fewest:
        raise LatencyError(
            f"at least {fewest} whole subnet(s) measured beside the blocks",
            f"{count} in the latency table",
            "Run `edgesearch profile` with the same configuration first.",
        )
    if not sums.warm_ms.min() > 0:
        raise LatencyError(
            "blocks that take longer than the fixed cost of a run",
            f"a network whose blocks take {sums.warm_ms.min():.3g} ms in all",
            "Measure the table again on an idle machine, or choose larger resolutions or batches.",
        )
    best, best_cold, best_error = np.zeros(_COLUMNS), False, np.inf
    for cold, sums_ms in ((False, sums.warm_ms), (True, sums.cold_ms)):
        if sums_ms is None:
            continue
        columns = _columns(sums, sums_ms)
        coefficients, error = best_form(columns, lows_ms, _FORMS, _solve, _is_sound)
        if coefficients is not None and error < best_error:
            best, best_cold, best_error = coefficients, cold, error
    chosen_ms = sums.cold_ms if best_cold and sums.cold_ms is not None else sums.warm_ms
    predicted = _columns(sums, chosen_ms) @ best
    return Correction(
        offset_ms=median_ratio * float(best[0]),
        scale=median_ratio * float(best[1]),
        per_block_ms=median_ratio * float(best[2]),
        cold=best_cold,
        p95_ratio=p95_ratio,
        networks=count,
        fit_mape=float(np.abs(predicted / lows_ms - 1).mean()),
        loo_mape=float(best_error) if count > 1 else None,
        median_ratio=median_ratio,
        per_million_params_ms=median_ratio * float(best[3]),
    )


_COLUMNS = 4
_FORMS = ((1,), (0, 1), (1, 2), (1, 3), (0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 1, 2, 3))
"""Columns in use: 0 offset, 1 sum of the blocks, 2 their number, 3 their parameters. The first is
always sound."""
_MILLION = 1e6


def _columns(sums: BlockSums, sums_ms: np.ndarray) -> np.ndarray:
    """(N, 4) what a latency is fitted to."""
    ones = np.ones(len(sums_ms))
    return np.stack([ones, sums_ms, sums.blocks, sums.params / _MILLION], axis=1)


def _solve(columns: np.ndarray, lows_ms: np.ndarray, form: tuple[int, ...]) -> np.ndarray:
    """(4,) coefficients with the least squared relative errors; 0 for unused columns."""
    weighted = columns[:, form] / lows_ms[:, None]
    coefficients = np.zeros(columns.shape[1])
    coefficients[list(form)] = np.linalg.lstsq(weighted, np.ones(len(columns)), rcond=None)[0]
    return coefficients


def _is_sound(coefficients: np.ndarray, columns: np.ndarray) -> bool:
    """Whether latency grows with block sum and parameters, and all fitted ones are positive."""
    blocks_ms = columns[:, 1:] @ coefficients[1:]
    total_ms = columns @ coefficients
    grows = coefficients[1] > 0 and coefficients[3] >= 0
    return bool(grows and blocks_ms.min() > 0 and total_ms.min() > 0)
