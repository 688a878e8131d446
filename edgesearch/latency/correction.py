"""Correction from sums of block latencies to latencies of whole networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

import numpy as np

from edgesearch.errors import LatencyError
from edgesearch.latency.fits import best_form, finite_fields

MIN_NETWORKS = 6
"""Fewest networks for a fit, where the space has as many that can run."""
FEWEST_FOR_GROWTH = 12
"""Fewest different low quantiles from which the growth of the medians' ratio is estimated."""
MOST_GROWTH = 0.1
"""Bound on this growth, an exponent."""
_Numbers = TypeVar("_Numbers", float, np.ndarray)


@dataclass(frozen=True)
class BlockSums:
    """Sums over the blocks of each network.

    Attributes:
        warm_ms: (N,) latencies with weights in the caches.
        cold_ms: (N,) latencies with weights in memory; None if unknown.
        blocks: (N,) numbers of blocks.
        params: (N,) numbers of parameters.
        values: (N,) numbers of values that blocks put out.
    """

    warm_ms: np.ndarray
    cold_ms: np.ndarray | None
    blocks: np.ndarray
    params: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Correction:
    """Linear model from the sum over blocks to the median of the whole network.

    Blocks are summed as low quantiles, which are nearly additive. A network has costs beyond its
    blocks. A block measured alone has costs that it lacks inside a network, a fixed one and one of
    its inputs and outputs, whose layout the runtime changes; and its weights are in the caches,
    where those of a whole network have room in part, the less the more there are. These costs are
    fitted by least squares on a few whole networks, on medians as `smooth_medians` gives them. The
    terms in use, and warm or cold block latencies, are selected by leave-one-out error: networks
    that fit into the caches behave like warm blocks, larger ones like cold blocks.

    Attributes:
        offset_ms: Cost of a network beyond its blocks.
        scale: Factor on the sum of the blocks.
        per_block_ms: Cost per block; below 0 where a block alone costs more than inside a network.
        cold: Whether the block latencies are those with cold caches.
        p95_ratio: Ratio of 95th percentile to median (quantiles are not additive).
        networks: Number of fitted networks.
        fit_mape: Mean absolute relative error of the fit.
        loo_mape: Leave-one-out error; slightly optimistic, since it also selects the form of the
            fit. None for a single network.
        median_ratio: Ratio of median to low quantile of the middle one of the fitted networks.
        per_million_params_ms: Cost per million parameters, whose weights come from memory.
        per_million_values_ms: Cost per million values that blocks put out; below 0 where their
            layout is changed at the ends of a block alone.
        crowding_ms: Cost of a network of a million parameters whose weights compete for room in the
            caches; it grows with the cube of their number, as if it began above some number.
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
    per_million_values_ms: float = 0.0
    crowding_ms: float = 0.0

    def block_cost_ms(self, latency_ms: float, params: int, values: int = 0) -> float:
        """Cost of a block inside a network, at least 0, without `crowded_ms`.

        Args:
            latency_ms: Its latency alone, warm or cold.
            params: Its parameters.
            values: The values that it puts out.
        """
        weights_ms = self.per_million_params_ms * params / _MILLION
        ends_ms = self.per_million_values_ms * values / _MILLION
        return max(0.0, self.scale * latency_ms + self.per_block_ms + weights_ms + ends_ms)

    def crowded_ms(self, params: _Numbers) -> _Numbers:
        """What networks of so many parameters cost because their weights compete for room."""
        return self.crowding_ms * (params / _MILLION) ** 3

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Correction:
        """Read the result of `dataclasses.asdict`.

        Terms that a former version did not know may be missing: they are 0.

        Raises:
            ValueError: A value is of the wrong kind.
            KeyError: A value is missing.
        """
        required = (each.name for each in fields(cls) if each.default is MISSING)
        names = dict.fromkeys([*required, *(cls.__dataclass_fields__.keys() & values.keys())])
        return cls(**finite_fields(names, values))


def smooth_medians(
    lows_ms: np.ndarray,
    level: Sequence[tuple[float, float]],
    slope: Sequence[tuple[float, float]],
) -> np.ndarray:
    """Medians (N,) expected of networks with these low quantiles (N,), in ms.

    The ratio of the two depends on the machine and, since a longer run is more likely disturbed,
    on the latency: it is a line in logarithms. (Single medians are noisy; a fit to them would take
    their noise for properties of the networks.)

    Source: Sen, "Estimates of the regression coefficient based on Kendall's tau" (1968), for the
    slope, which outliers do not change.

    Args:
        lows_ms: The low quantiles.
        level: Low quantile and ratio of whole networks in all sessions, at least one; see
            `LatencyTable.median_ratios`.
        slope: Those without anchors, few of which say little of the slope.
    """
    from scipy.stats import theilslopes

    growth = 0.0
    if len({low_ms for low_ms, _ in slope}) >= FEWEST_FOR_GROWTH:
        x, y = np.log(np.array(slope)).T
        growth = float(np.clip(theilslopes(y, x).slope, -MOST_GROWTH, MOST_GROWTH))
    x, y = np.log(np.array(level)).T
    medians: np.ndarray = lows_ms * np.exp(np.median(y - growth * x) + growth * np.log(lows_ms))
    return np.maximum(medians, lows_ms)


def fit_correction(
    sums: BlockSums,
    medians_ms: np.ndarray,
    *,
    median_ratio: float,
    p95_ratio: float,
    fewest: int = MIN_NETWORKS,
) -> Correction:
    """Least-squares fit of the relative errors, in the form with the smallest leave-one-out error.

    `medians_ms` are those of `smooth_medians` (N,); the ratios are defined as in `Correction`. A
    form has fewer coefficients than there are networks, unless there is only one.

    Raises:
        LatencyError: There are fewer than `fewest` networks, or the blocks took no time.
    """
    count = len(medians_ms)
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
    kinds = ((False, sums.warm_ms, _FORMS + _WARM_FORMS), (True, sums.cold_ms, _FORMS))
    for cold, sums_ms, forms in kinds:
        if sums_ms is None:
            continue
        columns = _columns(sums, sums_ms)
        coefficients, error = best_form(columns, medians_ms, forms, _solve, _is_sound)
        if coefficients is not None and error < best_error:
            best, best_cold, best_error = coefficients, cold, error
    chosen_ms = sums.cold_ms if best_cold and sums.cold_ms is not None else sums.warm_ms
    predicted = _columns(sums, chosen_ms) @ best
    return Correction(
        offset_ms=float(best[0]),
        scale=float(best[1]),
        per_block_ms=float(best[2]),
        cold=best_cold,
        p95_ratio=p95_ratio,
        networks=count,
        fit_mape=float(np.abs(predicted / medians_ms - 1).mean()),
        loo_mape=float(best_error) if count > 1 else None,
        median_ratio=median_ratio,
        per_million_params_ms=float(best[3]),
        per_million_values_ms=float(best[4]),
        crowding_ms=float(best[5]),
    )


_COLUMNS = 6
_FORMS = ((1,), (0, 1), (1, 2), (1, 3), (0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 1, 2, 3))
"""Columns in use: 0 offset, 1 sum of the blocks, 2 their number, 3 their parameters, 4 values that
they put out, 5 cube of the parameters. The first is always sound."""
_WARM_FORMS = (
    *((1, 4), (0, 1, 4), (1, 2, 4), (1, 3, 4)),
    *((1, 5), (0, 1, 5), (1, 2, 5), (1, 3, 5), (0, 1, 3, 5)),
    *((1, 4, 5), (0, 1, 4, 5), (1, 2, 4, 5)),
)
"""Further ones for warm blocks: cold ones have all weights from memory already."""
_MILLION = 1e6


def _columns(sums: BlockSums, sums_ms: np.ndarray) -> np.ndarray:
    """(N, 6) what a latency is fitted to."""
    params, values = sums.params / _MILLION, sums.values / _MILLION
    columns = [np.ones(len(sums_ms)), sums_ms, sums.blocks, params, values, params**3]
    return np.stack(columns, axis=1)


def _solve(columns: np.ndarray, medians_ms: np.ndarray, form: tuple[int, ...]) -> np.ndarray:
    """(6,) coefficients with the least squared relative errors; 0 for unused columns."""
    weighted = columns[:, form] / medians_ms[:, None]
    coefficients = np.zeros(columns.shape[1])
    coefficients[list(form)] = np.linalg.lstsq(weighted, np.ones(len(columns)), rcond=None)[0]
    return coefficients


def _is_sound(coefficients: np.ndarray, columns: np.ndarray) -> bool:
    """Whether latency grows with block sum and parameters, and all fitted ones are positive."""
    blocks_ms = columns[:, 1:] @ coefficients[1:]
    total_ms = columns @ coefficients
    _, per_ms, _, per_param, _, crowding = coefficients
    # Competition for room may begin above a number of parameters.
    per_last_param = per_param + 3 * crowding * columns[:, 3].max() ** 2
    grows = per_ms > 0 and per_last_param >= 0 and crowding >= 0
    return bool(grows and blocks_ms.min() > 0 and total_ms.min() > 0)
