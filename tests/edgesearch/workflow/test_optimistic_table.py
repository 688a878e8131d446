"""A table that promises too much: what is measured decides, and the correction learns from it."""

import json
import re

import numpy as np
import pytest

from edgesearch.latency import LatencyModel
from edgesearch.space import space_from_dict
from edgesearch.workflow.profile import current_correction
from profilers import LatencyTable
from profilers.workload import OVERHEAD_KEY, REFERENCE_KEY

TOO_SMALL = 0.4
"""What is left of each block's latency."""


def read(path):
    return json.loads(path.read_text())


def table_of(chain):
    (path,) = (chain.output_dir / "latency").glob("*.jsonl")
    return path


def shrink(path, chosen):
    """Make the latencies of some keys of a table smaller than they are."""
    lines = []
    for line in path.read_text().splitlines():
        values = json.loads(line)
        if "samples_ms" in values and chosen(values["key"]):
            values["samples_ms"] = [TOO_SMALL * ms for ms in values["samples_ms"]]
            if values.get("cold_ms") is not None:
                values["cold_ms"] *= TOO_SMALL
        lines.append(json.dumps(values))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def optimistic(chain):
    """A real table whose blocks are made faster than they are; the least true prediction in ms.

    Whole networks stay as they were measured: by them the state of the machine is known again.
    """
    space = space_from_dict(read(chain.output_dir / "engines/w0/manifest.json")["space"])
    path = table_of(chain)
    least_ms = float(LatencyModel.from_table(space, LatencyTable.load(path)).predict_all().min())
    keys = {block.key for block in space.distinct_blocks(16)} | {OVERHEAD_KEY}
    shrink(path, lambda key: key in keys)
    return space, path, least_ms


def search_all(chain, budget_ms):
    """Score the whole space, and keep all that is predicted to be fast enough."""
    all_of_them = ("strategy=exhaustive", "evaluations=32", "reserves=31")
    overrides = [f"search.{override}" for override in all_of_them]
    done = chain.call("search", *overrides, f"search.budgets={{latency_ms: {budget_ms}}}")
    assert done.returncode == 0, done.stderr
    return read(chain.output_dir / "search/chosen.json")["winners"][0]


def test_a_slow_winner_is_replaced_and_the_correction_updated(chain, optimistic):
    space, path, least_ms = optimistic
    budget_ms = 1.4 * least_ms
    first = search_all(chain, budget_ms)
    promised_ms = first["latency_ms"]["local-cpu"]["predicted"]
    assert promised_ms <= budget_ms
    before = LatencyTable.load(path)
    corrections = path.read_text().count('"correction"')

    done = chain.call("export", "export.tensorrt=", "export.max_replacements=20")
    assert done.returncode == 0, done.stderr
    assert "w0: its measured median of" in done.stderr
    assert "the correction is updated and a reserve takes its place" in done.stderr

    (winner,) = read(chain.output_dir / "winners.json")["winners"]
    assert winner["replaced"][0]["architecture"] == first["architecture"]
    too_slow = winner["replaced"][0]["latency_ms"]["local-cpu"]
    assert too_slow["interval"][0] > budget_ms
    assert too_slow["measured_p50"] > 1.5 * promised_ms
    figures = winner["latency_ms"]["local-cpu"]
    assert winner["architecture"] != first["architecture"]
    assert figures["interval"][0] <= budget_ms
    assert figures["predicted"] == pytest.approx(figures["measured_p50"], rel=0.4)

    # Coefficients of two corrections cannot be compared: one may stand for sums of warm blocks, the
    # other for sums of cold ones. What they make of every network can.
    table = LatencyTable.load(path)
    assert path.read_text().count('"correction"') > corrections
    former, updated = (
        LatencyModel.from_table(space, each, current_correction(space, each)).predict_all()
        for each in (before, table)
    )
    assert (updated > former).all()
    assert np.median(updated / former) > 1.5


def test_nothing_fast_enough_is_an_error_with_the_numbers(chain, optimistic):
    _, path, least_ms = optimistic
    budget_ms = 0.8 * least_ms
    first = search_all(chain, budget_ms)
    assert first["latency_ms"]["local-cpu"]["predicted"] <= budget_ms
    corrections = path.read_text().count('"correction"')
    done = chain.call("export", "export.tensorrt=", "export.max_replacements=20")
    assert done.returncode == 2, done.stderr
    wanted = f"a subnet for w0 with a median within {budget_ms:.3f} ms on local-cpu"
    assert f"error: required: {wanted}" in done.stderr
    assert f"is over the budget of {budget_ms:.3f} ms), and no further reserve" in done.stderr
    assert "candidate(s) that are too slow (w0: its measured median of" in done.stderr
    assert path.read_text().count('"correction"') > corrections


def test_a_table_that_is_too_fast_throughout_is_doubted(chain):
    """Whole networks pass for those of a machine that was faster; the reference says otherwise."""
    path = table_of(chain)
    shrink(path, lambda key: key != REFERENCE_KEY)
    text = path.read_text().splitlines()
    # A correction as it would have been fitted to such a table.
    fitted = [json.loads(line) for line in text if '"correction"' in line][-1]
    smaller = {name: TOO_SMALL * fitted[name] for name in ("offset_ms", "per_block_ms")}
    path.write_text("\n".join([*text, json.dumps({**fitted, **smaller})]) + "\n")
    done = chain.call("search", "search.budgets={latency_ms: [900, 1000], macs: 700000}")
    assert done.returncode == 0, done.stderr
    # What may differ does not: the table is of this machine, and doubted all the same.
    done = chain.call("export", "export.tensorrt=", "profile.accept=[chip]")
    assert done.returncode == 0, done.stderr
    said = re.findall(
        rf"fastest runs of networks of {path} took ([\d.]+) times as long as when it was begun, "
        r"those of the reference workload ([\d.]+) times",
        done.stderr,
    )
    assert len(said) == 1, done.stderr  # of two winners
    assert float(said[0][0]) / float(said[0][1]) > 1.25
