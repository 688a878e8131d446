"""What the post-processing of a task adds to the latency of a network, on real images."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices import Runtime, Session
from edgesearch.formats.onnx_export import INPUT_NAME

IMAGES, REPEATS = 16, 5
"""Batches that are timed, and how often each; the fastest counts, since other programs disturb."""


@dataclass(frozen=True)
class PostProcessingTime:
    """Latency of a network with its post-processing, on this machine.

    Attributes:
        median_ms: Over real images, with the post-processing.
        p95_ms: 95th percentile over the same.
        added_ms: Median of what it adds to the network without it.
        batches: Number of batches of images.
    """

    median_ms: float
    p95_ms: float
    added_ms: float
    batches: int


def time_post_processing(
    runtime: Runtime, without: Path, path: Path, images: np.ndarray
) -> PostProcessingTime | None:
    """Time two files in turn on images (N, C, R, R); None without a whole batch of them."""
    with (
        contextlib.closing(runtime.load(without)) as plain,
        contextlib.closing(runtime.load(path)) as whole,
    ):
        batch = whole.inputs[INPUT_NAME][0]
        starts = range(0, len(images) - batch + 1, batch)[:IMAGES]
        fastest = np.full((2, len(starts)), math.inf)
        for repeat in range(1 + REPEATS):  # the first warms up
            for number, start in enumerate(starts):
                pixels = np.ascontiguousarray(images[start : start + batch])
                for row, session in enumerate((plain, whole)):
                    taken_ms = _time_ms(session, pixels)
                    if repeat:
                        fastest[row, number] = min(fastest[row, number], taken_ms)
    if not len(starts):
        return None
    return PostProcessingTime(
        float(np.median(fastest[1])),
        float(np.percentile(fastest[1], 95)),
        float(np.median(fastest[1] - fastest[0])),
        len(starts),
    )


def _time_ms(session: Session, pixels: np.ndarray) -> float:
    begun = time.perf_counter()
    session.run({INPUT_NAME: pixels})
    return 1000 * (time.perf_counter() - begun)
