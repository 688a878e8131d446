"""Counter-based random numbers, keyed by seed, epoch, image and purpose.

The order of work, the number of worker processes and interruptions do not change them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash64(*parts: int | np.ndarray) -> np.ndarray:
    """Hash integers to uint64; arrays among the parts are broadcast."""
    with np.errstate(over="ignore"):
        state = np.asarray(0, dtype=np.uint64)
        for part in parts:
            word = np.asarray(part, dtype=np.int64).astype(np.uint64)
            state = _mix(state * _GOLDEN + word + _GOLDEN)
        return np.asarray(state)


def seed_of(*parts: int) -> int:
    """A 63-bit seed for the purpose that the parts identify."""
    return int(hash64(*parts)) >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Begin torch's random numbers on the processor with `seed`; afterwards they go on as before.

    `torch.manual_seed` would seed all GPUs too, which takes a hundred times as long.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def uniforms(count: int, *parts: int | np.ndarray) -> np.ndarray:
    """Uniform float64 numbers (N, count) in [0, 1), keyed by parts, one of them an array (N,)."""
    words = hash64(*(np.asarray(p)[..., None] for p in parts), np.arange(count))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order_of_epoch(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the images in an epoch: a permutation (count,) of 0 … count - 1."""
    return np.argsort(uniforms(1, seed, epoch, np.arange(count))[:, 0], kind="stable")
