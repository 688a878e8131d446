"""Are winners along the whole front as fast as they were searched to be?

The chain of a configuration with one winner for each of many budgets, which stand at equal ratios
between the fastest and the slowest architecture as predicted; every winner is measured as an
engine, and replaced where it breaks its budget. Printed for each is what was predicted and measured
(the interval holds the median with 95 % confidence), and how many stood there before it. Target:
none above its budget by more than the interval.

Usage: python benchmarks/winners_within_budget.py [--winners N] [--config NAME] [OVERRIDE ...]
(20 winners of quickstart, such as pretrain.epochs=2). Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import print_machine

from edgesearch.config import load_config
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.space import SearchSpace
from profilers import LatencyTable

MARGIN = 1.05
"""The least budget by the fastest architecture: predictions are not exact."""


def main() -> None:
    """Print a line for each winner, then how many are within their budgets."""
    parser = argparse.ArgumentParser(description="Are winners as fast as they were searched to be?")
    parser.add_argument("--winners", type=int, default=20)
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*")
    options = parser.parse_args()
    print_machine()
    shown = " ".join([options.config, *options.overrides])
    print(f"winners_within_budget: {options.winners} winners, {shown}")
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            options.config,
            f"output_dir={folder}/run",
            "export.tensorrt=",
            f"export.max_replacements={5 * options.winners}",
            *options.overrides,
        ]
        profiled = run("profile", arguments)
        shares = budgets(options.config, arguments[1:], profiled["table_path"], options.winners)
        run("pretrain", arguments)
        arguments.append(f"search.budgets={{latency_of_largest: {shares}}}")
        found = run("search", arguments)
        asked = {name: found[name] for name in ("feasible", "size")}
        print(f"  {asked['feasible']:,} of {asked['size']:,} architectures are within a budget")
        space = load_config(arguments[0], arguments[1:]).space.build()
        report(space, run("export", arguments)["winners"]["winners"])


def run(stage: str, arguments: list[str]) -> dict[str, Any]:
    """The result of a command, whose time is printed."""
    command = [sys.executable, "-m", "edgesearch", stage, *arguments, "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"  {stage}: {time.perf_counter() - start:.1f} s", flush=True)
    if done.returncode:
        raise SystemExit(f"{stage} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def budgets(config: str, overrides: list[str], table_path: str, count: int) -> list[float]:
    """Shares of the largest network's latency, at equal ratios from the fastest one's on."""
    space = load_config(config, overrides).space.build()
    model = LatencyModel.from_table(space, LatencyTable.load(Path(table_path)))
    largest_ms = model.predict(space.largest).median_ms
    least = MARGIN * float(model.predict_all().min()) / largest_ms
    return [round(float(share), 6) for share in np.geomspace(least, 1, count)]


def report(space: SearchSpace, winners: list[dict[str, Any]]) -> None:
    """Print all winners, and how many are as fast as they have to be."""
    header = ("winner", "budget ms", "predicted", "measured", "interval", "over", "replaced")
    print("  {:6} {:>10} {:>10} {:>10} {:>17} {:>7} {:>9}  architecture".format(*header))
    over, beyond = [], []
    for winner in winners:
        (figures,) = winner["latency_ms"].values()
        budget, measured, (low, high) = (
            figures[name] for name in ("budget", "measured_p50", "interval")
        )
        over.append(measured / budget - 1)
        beyond.append(low / budget - 1)
        print(
            f"  {winner['name']:6} {budget:10.4f} {figures['predicted']:10.4f} {measured:10.4f} "
            f"{f'{low:.4f}–{high:.4f}':>17} {over[-1]:+7.1%} {len(winner['replaced']):9}  "
            f"{space.from_choices(winner['architecture'])}"
        )
    within = sum(share <= 0 for share in over)
    held = sum(share > 0 >= least for share, least in zip(over, beyond, strict=True))
    print(
        f"  {within} of {len(winners)} measured within their budgets, {held} more with an interval "
        f"that holds the budget; {sum(share > 0 for share in beyond)} above it (target 0)"
    )
    print(
        f"  the slowest by its budget: {max(over):+.2%}; "
        f"{sum(len(winner['replaced']) for winner in winners)} candidates were replaced"
    )


if __name__ == "__main__":
    main()
