"""Predicts the latency of every architecture from a table measured on a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgesearch.errors import LatencyError
from edgesearch.latency.correction import (
    MIN_NETWORKS,
    BlockSums,
    Correction,
    fit_correction,
    smooth_medians,
)
from edgesearch.latency.head_latency import MIN_WHOLE, HeadFit, fit_head
from edgesearch.latency.table import NETWORK, WITH_HEAD, MeasuredNetwork, measured_networks
from edgesearch.space import Architecture, Block, SearchSpace
from edgesearch.space.count import Count, drawn_digits, is_laid_out
from edgesearch.tasks.head_costs import HeadCosts, TaskHead
from edgesearch.tasks.known_tasks import TASKS
from profilers import LatencyTable

_PASSED = (
    "If the cause has passed, run `edgesearch profile` with profile.retry_errors=true; otherwise "
)
"""The beginning of what to do about networks that fail; `choose …` follows."""


@dataclass(frozen=True)
class LatencyPrediction:
    """Predicted median and 95th percentile of one run."""

    median_ms: float
    p95_ms: float


class LatencyModel:
    """Predicts latencies as sums of block latencies, corrected by whole networks.

    Without a head these are latencies of backbones, with one those of whole models.

    Args:
        block_ms: Latency of each block by key, warm or cold as the correction requires; NaN if the
            runtime cannot run it.
        correction: From the sum of the blocks to the backbone.
        costs: What the head of a task computes; None for backbones.
        fit: From the backbone to the whole model; required with `costs`.
    """

    def __init__(
        self,
        space: SearchSpace,
        block_ms: dict[str, float],
        correction: Correction,
        costs: HeadCosts | None = None,
        fit: HeadFit | None = None,
    ) -> None:
        self.space = space
        self.block_ms = block_ms
        self.correction = correction
        self.costs, self.fit = costs, fit
        if costs is None or fit is None:
            self._sums_ms = space.sums(self._cost_ms)
        else:
            self._sums_ms = space.sums_over_parts(self._part_ms)
        self._params = space.sums_over_parts(self._params_of_part)

    @property
    def head(self) -> TaskHead | None:
        """The head of the whole models; None for backbones."""
        return None if self.costs is None else self.costs.head

    @property
    def about(self) -> str:
        """What the latencies are of, in words."""
        return about_latencies(self.head)

    @property
    def p95_ratio(self) -> float:
        """Ratio of 95th percentile to median."""
        return self.correction.p95_ratio if self.fit is None else self.fit.p95_ratio

    @property
    def offset_ms(self) -> float:
        """What every network costs beyond its blocks and what its head computes."""
        if self.fit is None:
            return self.correction.offset_ms
        return self.fit.scale * self.correction.offset_ms + self.fit.offset_ms

    @classmethod
    def from_table(
        cls,
        space: SearchSpace,
        table: LatencyTable,
        correction: Correction | None = None,
        head: TaskHead | None = None,
        fit: HeadFit | None = None,
    ) -> LatencyModel:
        """Make the model from a table; correction and fit are made from its networks if None.

        Raises:
            MissingKeyError: The table lacks a block.
            LatencyError: The table has too few networks of the space, or too few with the head.
        """
        warm_ms = _warm_ms(space, table)
        cold_ms = _cold_ms(table, warm_ms)
        if correction is None:
            correction = _fit(space, table, warm_ms, cold_ms)
        if correction.cold and cold_ms is None:
            raise LatencyError(
                f"blocks measured with cold caches in {table.path}, as its correction requires",
                "none",
                "Move the table away and measure it again.",
            )
        block_ms = cold_ms if correction.cold and cold_ms else warm_ms
        if head is None:
            return cls(space, block_ms, correction)
        costs = HeadCosts(space, head)
        if fit is None:
            plain = HeadFit(1.0, 0.0, 0.0, 0.0, correction.p95_ratio, 0, 0.0, None)
            fit = _fit_head(cls(space, block_ms, correction, costs, plain), table, costs)
        return cls(space, block_ms, correction, costs, fit)

    def _cost_ms(self, block: Block) -> float:
        """The cost of a block inside a network; NaN if the runtime cannot run it."""
        alone_ms = self.block_ms[block.key]
        if math.isnan(alone_ms):
            return math.nan
        return self.correction.block_cost_ms(alone_ms, block.params, math.prod(block.out_shape))

    def block_costs_ms(self, architecture: Architecture) -> list[float]:
        """The cost of each block of an architecture; NaN for a block that the runtime cannot run.

        It is 0 for a block that the whole model does not have. Together with `offset_ms` and
        `head_ms` they sum up to the predicted median.
        """
        parts = self.space.blocks_of_parts(architecture)
        blocks = [(self._has_part(n), block) for n, part in enumerate(parts) for block in part]
        params = sum(block.params for is_there, block in blocks if is_there)
        crowded_ms = self.correction.crowded_ms(float(params))
        return [
            self._scale * (self._cost_ms(block) + crowded_ms * block.params / params)
            if is_there
            else 0.0
            for is_there, block in blocks
        ]

    def head_ms(self, architecture: Architecture) -> float:
        """What the head computes for an architecture; 0 for a backbone."""
        if self.costs is None or self.fit is None:
            return 0.0
        return self.fit.head_ms(self.costs.of(architecture))

    @property
    def _scale(self) -> float:
        return 1.0 if self.fit is None else self.fit.scale

    def _has_part(self, number: int) -> bool:
        return self.costs is None or number <= self.costs.last_part

    def _params_of_part(self, number: int, resolution: int, blocks: Sequence[Block]) -> int:
        return sum(block.params for block in blocks) if self._has_part(number) else 0

    def _part_ms(self, number: int, resolution: int, blocks: Sequence[Block]) -> float:
        """The cost of a part, with what the head adds because of it."""
        assert self.costs is not None and self.fit is not None
        own_ms = sum(map(self._cost_ms, blocks)) if self._has_part(number) else 0.0
        head_ms = self.fit.head_ms(self.costs.of_part(number, resolution, blocks))
        return self.fit.scale * own_ms + head_ms

    def predict(self, architecture: Architecture) -> LatencyPrediction:
        """The latency of an architecture; infinite if the runtime cannot run one of its blocks."""
        total = sum(self.block_costs_ms(architecture))
        head_ms = self.head_ms(architecture)
        median = math.inf if math.isnan(total) else self.offset_ms + total + head_ms
        return LatencyPrediction(median, median * self.p95_ratio)

    def predict_all(self, digits: np.ndarray | None = None) -> np.ndarray:
        """Predicted medians in ms, (n,), of architectures (n, d) or the whole space.

        They are infinite where the runtime cannot run a block.
        """
        crowded_ms = self._scale * self.correction.crowded_ms(self._params(digits))
        return np.nan_to_num(self.offset_ms + self._sums_ms(digits) + crowded_ms, nan=math.inf)

    def range_ms(self) -> tuple[float, float]:
        """Lowest and highest predicted median in ms of what can run.

        Of a space that is not enumerated, a sample is looked at, and both ends.
        """
        ends = self.space.to_digits([self.space.smallest, self.space.largest])
        found = np.concatenate([self.predict_all(drawn_digits(self.space)), self.predict_all(ends)])
        found = found[np.isfinite(found)]
        return (float(found.min()), float(found.max())) if len(found) else (math.nan, math.nan)

    def cannot_run(self) -> Count:
        """Number of architectures with a block that the runtime cannot run."""
        return Count.of(self.space, np.isinf(self.predict_all(drawn_digits(self.space))))


def about_latencies(head: TaskHead | None) -> str:
    """What latencies are of, in words: "backbone", or "whole model (head … for … classes)"."""
    return "backbone" if head is None else f"whole model ({head})"


def block_sum_ms(blocks: Sequence[Block], block_ms: dict[str, float]) -> float:
    """Sum of block latencies."""
    return sum(block_ms[block.key] for block in blocks)


def _warm_ms(space: SearchSpace, table: LatencyTable) -> dict[str, float]:
    errors = table.errors
    keys = {block.key for size in space.resolutions for block in space.distinct_blocks(size)}
    return {key: math.nan if key in errors else table.low_quantile_ms(key) for key in sorted(keys)}


def _cold_ms(table: LatencyTable, warm_ms: dict[str, float]) -> dict[str, float] | None:
    """Latencies with cold caches; None unless known for all blocks that can run."""
    cold_ms = {
        key: math.nan if math.isnan(ms) else table.cold_quantile_ms(key)
        for key, ms in warm_ms.items()
    }
    known = {key: ms for key, ms in cold_ms.items() if ms is not None}
    return known if len(known) == len(cold_ms) else None


def _fit(
    space: SearchSpace,
    table: LatencyTable,
    warm_ms: dict[str, float],
    cold_ms: dict[str, float] | None,
) -> Correction:
    # The last measurement of a network counts: the machine may have been busy before.
    networks = measured_networks(table, space)
    latest = {network.architecture: network for network in networks}
    blocks = [space.blocks(architecture) for architecture in latest]
    warm = np.array([block_sum_ms(of_network, warm_ms) for of_network in blocks])
    # A network may run although one of its blocks alone does not.
    kept = np.isfinite(warm)
    cold = None
    if cold_ms is not None:
        cold = np.array([block_sum_ms(of_network, cold_ms) for of_network in blocks])[kept]
    counts = np.array([len(of_network) for of_network in blocks], float)
    params = np.array([sum(block.params for block in of_network) for of_network in blocks], float)
    values = np.array([sum(math.prod(b.out_shape) for b in of_network) for of_network in blocks])
    whole = f"{NETWORK}/{space.space_hash[:8]}/"
    failed = sorted(key for key in table.errors if key in warm_ms or key.startswith(whole))
    fewest = MIN_NETWORKS
    if is_laid_out(space):
        can_run = np.isfinite(space.sums(lambda block: warm_ms[block.key])(None))
        fewest = min(fewest, int(can_run.sum()) - sum(key.startswith(whole) for key in failed))
    fewest = max(1, fewest)
    if failed and kept.sum() < fewest:
        raise LatencyError(
            f"at least {fewest} whole subnet(s) that {table.spec.name} can run",
            f"{kept.sum()}; {len(failed)} of its blocks and subnets cannot run, {failed[0]} "
            f"because of: {table.errors[failed[0]]}",
            f"{_PASSED}choose another runtime, precision or space.",
        )
    fitted = [network for network, is_kept in zip(latest.values(), kept, strict=True) if is_kept]
    medians_ms = np.array([])
    ratio = at_p95 = 1.0
    if fitted:  # otherwise fit_correction raises
        medians_ms, ratio = _medians_ms(table, networks, fitted)
        at_p95 = float(np.median([network.p95_ms / network.median_ms for network in fitted]))
    return fit_correction(
        BlockSums(warm[kept], cold, counts[kept], params[kept], values[kept]),
        medians_ms,
        median_ratio=ratio,
        p95_ratio=at_p95,
        fewest=fewest,
    )


def _medians_ms(
    table: LatencyTable, networks: Sequence[MeasuredNetwork], fitted: Sequence[MeasuredNetwork]
) -> tuple[np.ndarray, float]:
    """Smooth medians (N,) of the fitted ones, and the middle of their ratios to low quantiles."""
    lows_ms, keys = np.array([each.low_ms for each in fitted]), [each.key for each in networks]
    level, slope = table.median_ratios(keys), table.median_ratios(keys, with_anchors=False)
    medians_ms = smooth_medians(lows_ms, level, slope)
    return medians_ms, float(np.median(medians_ms / lows_ms))


def other_heads(head: TaskHead) -> str:
    """The heads of the task to choose instead, to be followed by another way; "" without any."""
    names = [name for name in TASKS[head.task].heads if name != head.head]
    return f"finetune.head={' or '.join(names)}, or " if names else ""


def _fit_head(backbones: LatencyModel, table: LatencyTable, costs: HeadCosts) -> HeadFit:
    """Fit the head to the whole models of a table.

    `backbones` predicts them as if the head cost nothing.
    """
    space, head = backbones.space, costs.head
    networks = measured_networks(table, space, head=head)
    latest = {network.architecture: network for network in networks}
    predicted_ms = np.array([backbones.predict(each).median_ms for each in latest])
    kept = np.isfinite(predicted_ms)
    failed = {
        key: why
        for key, why in table.errors.items()
        if key.startswith(f"{WITH_HEAD}/{space.space_hash[:8]}/{head.key}/")
    }
    fewest = max(1, min(MIN_WHOLE, backbones.correction.networks))
    if kept.sum() < fewest:
        why = "".join(f"; {key} cannot run: {error}" for key, error in [*failed.items()][:1])
        raise LatencyError(
            f"at least {fewest} whole models with {head} that {table.spec.name} can run",
            f"{kept.sum()} in {table.path}{why}",
            f"{_PASSED}choose {other_heads(head)}another runtime or precision."
            if failed
            else "Run `edgesearch profile` with the same configuration first.",
        )
    fitted = [network for network, is_kept in zip(latest.values(), kept, strict=True) if is_kept]
    return fit_head(
        predicted_ms[kept],
        np.array([costs.of(network.architecture) for network in fitted]),
        _medians_ms(table, networks, fitted)[0],
        float(np.median([network.p95_ms / network.median_ms for network in fitted])),
    )
