"""From sums of block latencies to the latencies of whole networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgesearch.errors import LatencyError

MIN_NETWORKS = 6


@dataclass(frozen=True)
class Correction:
    """A straight line from the sum over blocks to the median of the whole network.

    Blocks are summed as low quantiles, which add up well but lie below the median; and a network
    has costs that its blocks do not have. A line through a few whole networks mends both.

    Attributes:
        offset_ms: Cost of a network beyond its blocks.
        scale: Factor on the sum of the blocks.
        p95_ratio: 95th percentile of a network divided by its median (quantiles do not add).
        networks: Number of networks that it was fitted to.
        fit_mape: Mean relative error of the medians on these same networks.
    """

    offset_ms: float
    scale: float
    p95_ratio: float
    networks: int
    fit_mape: float

    def median_ms(self, sums_ms: np.ndarray) -> np.ndarray:
        """Medians of networks whose blocks sum up to `sums_ms`, of the same shape."""
        return self.offset_ms + self.scale * sums_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Correction:
        """Read what `to_dict` wrote; other entries are passed over."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


def fit_correction(sums_ms: np.ndarray, medians_ms: np.ndarray, p95s_ms: np.ndarray) -> Correction:
    """Fit the line by least squares of the relative errors.

    Args:
        sums_ms: (N,) sums of the low quantiles of each network's blocks.
        medians_ms: (N,) measured medians of the networks.
        p95s_ms: (N,) their measured 95th percentiles.

    Raises:
        LatencyError: There are fewer than six networks, or blocks that took no time.
    """
    if len(sums_ms) < MIN_NETWORKS:
        raise LatencyError(
            f"at least {MIN_NETWORKS} whole subnets measured beside the blocks",
            f"{len(sums_ms)} in the latency table",
            "Set profile.networks to 6 or more and run `edgesearch profile`.",
        )
    if not sums_ms.min() > 0:
        raise LatencyError(
            "blocks that take longer than the fixed cost of a run",
            f"a network whose blocks take {sums_ms.min():.3g} ms in all",
            "Measure the table again on an idle machine, or choose larger resolutions or batches.",
        )
    columns = np.stack([np.ones_like(sums_ms), sums_ms], axis=1)
    weighted = columns / medians_ms[:, None]
    offset, scale = np.linalg.lstsq(weighted, np.ones_like(sums_ms), rcond=None)[0]
    if scale <= 0 or offset + scale * sums_ms.min() <= 0:
        # Too noisy or too alike for a line: a factor alone keeps the order of the sums.
        offset, scale = 0.0, float(np.median(medians_ms / sums_ms))
    errors = np.abs(offset + scale * sums_ms - medians_ms) / medians_ms
    return Correction(
        offset_ms=float(offset),
        scale=float(scale),
        p95_ratio=float(np.median(p95s_ms / medians_ms)),
        networks=len(sums_ms),
        fit_mape=float(errors.mean()),
    )
