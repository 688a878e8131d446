"""Threads that wait give their cores away; OpenMP itself says whether it was told."""

import os
import subprocess
import sys

import pytest

from edgesearch.training.waiting import OF_THE_USER, SPINS

CODE = "import edgesearch.cli, torch; torch.ones(200_000).sin().sum()"


def told_by_openmp(**variables: str) -> str:
    kept = {name: text for name, text in os.environ.items() if name not in OF_THE_USER}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**kept, "OMP_DISPLAY_ENV": "VERBOSE", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("torch computes by another OpenMP than GNU's here")
    return done.stderr


def test_the_command_line_lets_threads_wait_briefly():
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in told_by_openmp()


@pytest.mark.parametrize(
    ("name", "text"), [("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "ACTIVE")]
)
def test_what_the_user_has_set_stays(name, text):
    said = told_by_openmp(**{name: text})
    assert f"{name} = '{text}'" in said
    assert f"GOMP_SPINCOUNT = '{SPINS}'" not in said
