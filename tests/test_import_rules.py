"""Who may import whom, what stays light, and how long files and functions may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("devices", "edgesearch", "profilers")

EVERY_ROOM = {"edgesearch.errors"}
ALLOWED = {
    "devices": set(),
    "profilers": {"devices"},
    "edgesearch.errors": {"devices.errors"},
    "edgesearch.space": EVERY_ROOM,
    "edgesearch.data": EVERY_ROOM,
    "edgesearch.config": EVERY_ROOM | {"edgesearch.space", "devices.spec", "edgesearch"},
    "edgesearch.supernet": EVERY_ROOM | {"edgesearch.space"},
    "edgesearch.latency": EVERY_ROOM | {"edgesearch.space", "profilers"},
    "edgesearch.evaluate": EVERY_ROOM | {"edgesearch.space", "edgesearch.supernet"},
}
ALLOWED["edgesearch.pretrain"] = EVERY_ROOM | {
    f"edgesearch.{room}" for room in ("space", "supernet", "evaluate", "data")
}
ALLOWED["edgesearch.search"] = EVERY_ROOM | {
    f"edgesearch.{room}" for room in ("space", "supernet", "evaluate", "latency")
}
ALLOWED["edgesearch.export"] = EVERY_ROOM | {
    "devices",
    *(f"edgesearch.{room}" for room in ("space", "supernet", "evaluate")),
}
ALLOWED["edgesearch.workflow"] = {"devices", "profilers"} | (
    set(ALLOWED) - {"edgesearch.config", "edgesearch"}
)
ALLOWED["edgesearch.cli"] = EVERY_ROOM | {"edgesearch.workflow", "edgesearch.config", "edgesearch"}
ALLOWED["edgesearch.__main__"] = {"edgesearch.cli"}
# Lazy: these imports are for type checkers alone.
ALLOWED["edgesearch"] = {"edgesearch.config", "edgesearch.space", "edgesearch.workflow"}

NO_HEAVY = ("torch", "torchvision", "nni", "sklearn", "pydantic", "typer", "rich", "PIL")
FOREIGN = {"devices": NO_HEAVY, "profilers": NO_HEAVY}
