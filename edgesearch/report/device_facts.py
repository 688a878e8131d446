"""The devices of a run: what is known of each, and predicted beside measured latencies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices import DeviceSpec
from edgesearch.errors import UserError
from edgesearch.latency.latency_model import LatencyModel, about_latencies
from edgesearch.latency.load_table import corrected_model
from edgesearch.latency.prediction_error import PredictionError, prediction_error
from edgesearch.latency.table import (
    NETWORK,
    VALIDATION,
    WHOLE,
    WINNER,
    WITH_HEAD,
    WITH_HEAD_VALIDATION,
    current_correction,
    current_head,
    describe,
    measured_networks,
    steadiness_of,
    table_digest,
)
from edgesearch.run.context import RunContext
from edgesearch.space import SearchSpace
from profilers import LatencyTable, Steadiness

KINDS = {NETWORK: "fitted", VALIDATION: "held out", WINNER: "winner"}
KINDS_WITH_HEAD = {
    with_head: KINDS[kind]
    for kind, with_head in {
        NETWORK: WITH_HEAD,
        VALIDATION: WITH_HEAD_VALIDATION,
        WINNER: WHOLE,
    }.items()
}
"""Words for the whole networks of a table."""


@dataclass(frozen=True)
class NetworkPoint:
    """A whole network, predicted and measured; `kind` is one of the values of `KINDS`."""

    architecture: str
    kind: str
    predicted_ms: float
    measured_ms: float


@dataclass(frozen=True)
class DeviceFacts:
    """A device with its latency table.

    Attributes:
        sentences: The description of the table.
        fingerprint: Machine and runtime, without what is unknown.
        model: Predicts latencies; None without a correction for the space.
        networks: Whole networks, the last measurement of each kind.
        held_out: Error on networks that nothing was fitted to; None without.
        latency_of: What predictions and networks are of: "backbone", or "whole model".
    """

    spec: DeviceSpec
    path: Path
    digest: str
    sentences: tuple[str, ...]
    steadiness: Steadiness
    fingerprint: dict[str, Any]
    model: LatencyModel | None
    networks: tuple[NetworkPoint, ...]
    held_out: PredictionError | None
    latency_of: str = "backbone"

    @property
    def chip(self) -> str:
        """The processor that networks run on."""
        return str(self.fingerprint.get("gpu") or self.fingerprint.get("chip") or "unknown")


def device_specs(run: RunContext) -> tuple[DeviceSpec, ...]:
    """The device of a run, then those of `search.budgets.devices`."""
    return (run.device, *run.config.search.budgets.further_devices().values())


def read_device(run: RunContext, spec: DeviceSpec) -> DeviceFacts | None:
    """What is known of a device; None without a latency table.

    Raises:
        UserError: The table is damaged.
    """
    path = run.files.table(spec)
    if not path.exists():
        return None
    table = LatencyTable.load(path)
    model, head = None, None
    with suppress(UserError):  # without images the number of classes may be unknown
        head = run.head
    if head is not None and current_head(run.space, table, head) is None:
        head = None
    if current_correction(run.space, table) is not None:
        model = corrected_model(run.space, table, head)
    networks = () if model is None else tuple(_networks(table, run.space, model))
    checked = [each for each in networks if each.kind == KINDS[VALIDATION]]
    held_out = None
    if checked:
        predicted_ms = np.array([each.predicted_ms for each in checked])
        measured_ms = np.array([each.measured_ms for each in checked])
        held_out = prediction_error(predicted_ms, measured_ms)
    known = {k: v for k, v in table.fingerprint.to_dict().items() if v not in (None, "", [], {})}
    return DeviceFacts(
        spec=spec,
        path=path,
        digest=table_digest(path, head),
        sentences=tuple(describe(table).splitlines()),
        steadiness=steadiness_of(table),
        fingerprint=known,
        model=model,
        networks=networks,
        held_out=held_out,
        latency_of=about_latencies(head),
    )


def _networks(
    table: LatencyTable, space: SearchSpace, model: LatencyModel
) -> Iterator[NetworkPoint]:
    kinds = KINDS if model.head is None else KINDS_WITH_HEAD
    for kind, words in kinds.items():
        found = measured_networks(table, space, kind, head=model.head)
        latest = {each.architecture: each for each in found}
        for architecture, network in latest.items():
            predicted_ms = model.predict(architecture).median_ms
            if math.isfinite(predicted_ms):
                yield NetworkPoint(str(architecture), words, predicted_ms, network.median_ms)
