"""The agent as one file that Python runs, made of the packages devices and profilers."""

from __future__ import annotations

import zipfile
from pathlib import Path

_MAIN = """\
import sys

if sys.version_info < (3, 10):
    sys.exit("edgesearch needs Python 3.10 or newer, not " + sys.version.split()[0])
try:
    import numpy
except ImportError as error:
    sys.exit("edgesearch needs numpy there: " + str(error).strip().split("\\n")[-1])
from profilers.agent import main

main()
"""


def write_agent(path: Path) -> None:
    """Write the archive; equal sources give equal bytes."""
    root = Path(__file__).parents[1]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), _MAIN)
        for package in ("devices", "profilers"):
            for source in sorted((root / package).rglob("*.py")):
                name = zipfile.ZipInfo(source.relative_to(root).as_posix())
                archive.writestr(name, source.read_bytes(), zipfile.ZIP_DEFLATED)
