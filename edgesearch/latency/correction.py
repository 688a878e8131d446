"""From sums of block latencies to the latencies of whole networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgesearch.errors import LatencyError

MIN_NETWORKS = 6


@dataclass(frozen=True)
class BlockSums:
    """What the blocks of some networks add up to.

    Attributes:
        warm_ms: (N,) sums of latencies with the weights in the caches.
        cold_ms: (N,) sums of latencies with the weights in memory; None if they are not known.
        blocks: (N,) numbers of blocks.
    """

    warm_ms: np.ndarray
    cold_ms: np.ndarray | None
    blocks: np.ndarray


@dataclass(frozen=True)
class Correction:
    """From the sum over blocks to the median of the whole network.

    Blocks are summed as low quantiles, which add up well. A network has costs that its blocks do
    not have, and a block measured alone has a fixed cost that it has not inside of a network: a
    plane through the low quantiles of a few whole networks mends that. How far medians lie above
    low quantiles is not a matter of the network, but of how restless the machine is: it is one
    ratio for all, which the coefficients contain. (A plane through the medians would take the
    chance of each network's median for a trait of it.) Whether the blocks' latencies are those with
    warm or with cold caches is decided by which of the two predicts left out networks better:
    networks that fit into the caches are like warm blocks, larger ones like cold ones.

    Attributes:
        offset_ms: Cost of a network beyond its blocks.
        scale: Factor on the sum of the blocks.
        per_block_ms: Cost of each block; below 0 where a block alone costs more than inside.
        cold: Whether the sums are those of blocks with cold caches.
        p95_ratio: 95th percentile of a network divided by its median (quantiles do not add).
        networks: Number of networks that it was fitted to.
        fit_mape: Mean relative error of the low quantiles of these same networks.
        loo_mape: The same, of each network by a correction fitted to the others; the form was
            chosen by this figure, so it is a little optimistic.
        median_ratio: Median of a network divided by its low quantile; the coefficients contain it.
    """

    offset_ms: float
    scale: float
    p95_ratio: float
    networks: int
    fit_mape: float
    per_block_ms: float
    cold: bool
    loo_mape: float
    median_ratio: float

    def block_cost_ms(self, latency_ms: float) -> float:
        """What a block adds to a network, never less than nothing.

        Args:
            latency_ms: Of the block alone, of the kind that `cold` says.
        """
        return max(0.0, self.scale * latency_ms + self.per_block_ms)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Correction:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: A value is of the wrong kind; or a KeyError if one is missing.
        """
        found = {name: values[name] for name in cls.__dataclass_fields__}
        for name, value in found.items():
            is_right = isinstance(value, bool) == (name == "cold")
            if not (is_right and isinstance(value, (int, float)) and math.isfinite(value)):
                raise ValueError(f"{name} {value!r}")
        return cls(**found)


def fit_correction(
    sums: BlockSums, lows_ms: np.ndarray, *, median_ratio: float, p95_ratio: float
) -> Correction:
    """Fit by least squares of the relative errors, in the form that predicts left out networks.

    Args:
        sums: Of the blocks of each network.
        lows_ms: (N,) measured low quantiles of the networks.
        median_ratio: Their medians divided by their low quantiles.
        p95_ratio: Their 95th percentiles divided by their medians.

    Raises:
        LatencyError: There are fewer than six networks, or blocks that took no time.
    """
    count = len(lows_ms)
    if count < MIN_NETWORKS:
        raise LatencyError(
            f"at least {MIN_NETWORKS} whole subnets measured beside the blocks",
            f"{count} in the latency table",
            "Set profile.networks to 6 or more and run `edgesearch profile`.",
        )
    if not sums.warm_ms.min() > 0:
        raise LatencyError(
            "blocks that take longer than the fixed cost of a run",
            f"a network whose blocks take {sums.warm_ms.min():.3g} ms in all",
            "Measure the table again on an idle machine, or choose larger resolutions or batches.",
        )
    best, best_cold, best_error = np.zeros(3), False, np.inf
    for cold, sums_ms in ((False, sums.warm_ms), (True, sums.cold_ms)):
        if sums_ms is None:
            continue
        columns = np.stack([np.ones(count), sums_ms, sums.blocks], axis=1)
        for form in _FORMS:
            coefficients = _solve(columns, lows_ms, form)
            if not _is_sound(coefficients, columns):
                continue
            error = _left_out_error(columns, lows_ms, form)
            if error < best_error:
                best, best_cold, best_error = coefficients, cold, error
    chosen_ms = sums.cold_ms if best_cold and sums.cold_ms is not None else sums.warm_ms
    predicted = np.stack([np.ones(count), chosen_ms, sums.blocks], axis=1) @ best
    return Correction(
        offset_ms=median_ratio * float(best[0]),
        scale=median_ratio * float(best[1]),
        per_block_ms=median_ratio * float(best[2]),
        cold=best_cold,
        p95_ratio=p95_ratio,
        networks=count,
        fit_mape=float(np.abs(predicted / lows_ms - 1).mean()),
        loo_mape=float(best_error),
        median_ratio=median_ratio,
    )


_FORMS = ((1,), (0, 1), (1, 2), (0, 1, 2))
"""Columns that are used: 0 the offset, 1 the sum of the blocks, 2 their number. The first form is
always sound: a factor alone keeps the order of the sums, however noisy the networks are."""


def _solve(columns: np.ndarray, lows_ms: np.ndarray, form: tuple[int, ...]) -> np.ndarray:
    """(3,) coefficients with the least relative errors; 0 for columns that are not used."""
    weighted = columns[:, form] / lows_ms[:, None]
    coefficients = np.zeros(columns.shape[1])
    coefficients[list(form)] = np.linalg.lstsq(weighted, np.ones(len(columns)), rcond=None)[0]
    return coefficients


def _is_sound(coefficients: np.ndarray, columns: np.ndarray) -> bool:
    """Whether longer blocks make longer networks, and no fitted one takes less than nothing."""
    blocks_ms = columns[:, 1:] @ coefficients[1:]
    total_ms = columns @ coefficients
    return bool(coefficients[1] > 0 and blocks_ms.min() > 0 and total_ms.min() > 0)


def _left_out_error(columns: np.ndarray, lows_ms: np.ndarray, form: tuple[int, ...]) -> float:
    """Mean relative error on each network of a fit to the others."""
    errors = []
    for index in range(len(columns)):
        others = np.arange(len(columns)) != index
        coefficients = _solve(columns[others], lows_ms[others], form)
        errors.append(abs(columns[index] @ coefficients / lows_ms[index] - 1))
    return float(np.mean(errors))
