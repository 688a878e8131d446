"""Pictures in any environment of matplotlib."""

import os
import subprocess
import sys

import pytest

DRAW = """
import os
from pathlib import Path
from edgesearch.pictures import picture
with picture(Path("a.png"), 2, 2) as figure:
    figure.subplots().set(title="no formula: $x_{", xlabel="$")
import matplotlib
print(os.environ["MPLBACKEND"], matplotlib.get_backend())
"""


@pytest.mark.parametrize(
    ("backend", "later"),
    [("svg", "svg"), ("nonsense", "agg"), ("module://no_module.backend_inline", "agg")],
)
def test_neither_a_backend_nor_a_matplotlibrc_matters(tmp_path, backend, later):
    """A backend that there is stays the choice of the user's own plots."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfigure.dpi: 3\n")
    environment = {**os.environ, "MPLBACKEND": backend}
    command = [sys.executable, "-c", DRAW]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kept, found = done.stdout.split()
    assert kept == backend
    assert found == later or backend.startswith("module")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
