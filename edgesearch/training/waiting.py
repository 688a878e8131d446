"""How threads of a computation wait for each other."""

from __future__ import annotations

import os

SPINS = 20_000
"""Looks of a waiting thread at what it waits for before it gives its core away."""
OF_THE_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly() -> None:
    """Let waiting threads give their cores away soon; to be called before torch is imported.

    Threads of GNU OpenMP, which computes for torch on Linux, spin for milliseconds by default. If
    another program needs a core meanwhile, a thread that waits keeps from it the thread that is
    waited for: a training step then takes twice as long or more (`benchmarks/waiting_threads.py`).
    A count of 1,000 helps more, and makes steps alone a fifth slower. Variables that the user has
    set stay.
    """
    if not any(name in os.environ for name in OF_THE_USER):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)
