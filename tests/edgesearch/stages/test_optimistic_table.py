"""A table that promises too much: what is measured decides, and the correction learns from it."""

import json
import re
import sys

import numpy as np
import pytest

from edgesearch.families import space_from_dict
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.stages.profile import current_correction
from profilers import LatencyTable
from profilers.latency_record import ANCHOR
from profilers.measure import Measurement, RoundSamples
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


class KnownMeter:
    """Stands for a device whose networks take what a table said before it was spoilt.

    A real one may be slower or faster at the time of the export than while it was profiled, and
    budgets of microseconds are then kept or broken by chance. Measuring is real in `test_chain.py`.
    """

    def __init__(self, table, model):
        self.fingerprints = [table.fingerprint]
        self.model = model
        self.table = table

    def measure(self, workloads, anchors, config, history):
        own = {key: self.level_ms(key) for key in (REFERENCE_KEY, OVERHEAD_KEY)}
        own |= {ANCHOR + workload.key: self.level_ms(workload.key) for workload in anchors}
        for workload in workloads:
            architecture = self.model.space.from_choices(workload.architecture)
            own[workload.key] = self.model.predict(architecture).median_ms
        for number in range(1, config.rounds + 1):
            for key, ms in own.items():
                yield Measurement(number, key, RoundSamples(ms, (ms, ms)))

    def level_ms(self, key):
        """What sessions are joined by, so that this one passes for as fast as the first."""
        rounds = self.table.samples_ms(key).values()
        return float(np.quantile([min(samples) for samples in rounds], 0.25))

    def close(self):
        pass


@pytest.fixture
def optimistic(chain, monkeypatch):
    """A real table that promises `TOO_SMALL` of what networks take; the model that knows better.

    Whole networks stay as they were measured: by them the state of the machine is known again.
    """
    space = space_from_dict(read(chain.output_dir / "engines/w0/manifest.json")["space"])
    path = table_of(chain)
    true_table = LatencyTable.load(path)
    correction = current_correction(space, true_table)
    truth = LatencyModel.from_table(space, true_table, correction)
    export = sys.modules["edgesearch.stages.export"]  # its name is the function's, too
    monkeypatch.setattr(export, "open_meter", lambda device: KnownMeter(true_table, truth))
    keys = {block.key for block in space.distinct_blocks(16)} | {OVERHEAD_KEY}
    shrink(path, lambda key: key in keys)
    shrink_correction(path)
    promises = LatencyModel.from_table(
        space, LatencyTable.load(path), current_correction(space, LatencyTable.load(path))
    )
    np.testing.assert_allclose(promises.predict_all(), TOO_SMALL * truth.predict_all())
    return space, path, truth


def shrink_correction(path):
    """Append a correction as it would have been fitted to networks that are as fast as blocks."""
    text = path.read_text().splitlines()
    fitted = [json.loads(line) for line in text if '"correction"' in line][-1]
    smaller = {name: TOO_SMALL * fitted[name] for name in ("offset_ms", "per_block_ms")}
    path.write_text("\n".join([*text, json.dumps({**fitted, **smaller})]) + "\n")


def search_all(chain, budget_ms):
    """Score the whole space, and keep all that is predicted to be fast enough."""
    all_of_them = ("strategy=exhaustive", "evaluations=32", "reserves=31")
    overrides = [f"search.{override}" for override in all_of_them]
    done = chain.call("search", *overrides, f"search.budgets={{latency_ms: {budget_ms}}}")
    assert done.returncode == 0, done.stderr
    return read(chain.output_dir / "search/chosen.json")["winners"][0]


def test_a_slow_winner_is_replaced_and_the_correction_updated(chain, optimistic):
    space, path, truth = optimistic
    first = space.from_choices(search_all(chain, 1000)["architecture"])
    true_ms = truth.predict(first).median_ms
    budget_ms = float(truth.predict_all().min() + true_ms) / 2
    chosen = search_all(chain, budget_ms)
    assert space.from_choices(chosen["architecture"]) == first
    promised_ms = chosen["latency_ms"]["local-cpu"]["predicted"]
    assert promised_ms <= budget_ms < true_ms
    before = LatencyTable.load(path)
    corrections = path.read_text().count('"correction"')

    done = chain.call("export", "export.tensorrt=", "export.max_replacements=20")
    assert done.returncode == 0, done.stderr
    assert "w0: its measured median of" in done.stderr
    assert "the correction is updated and a reserve takes its place" in done.stderr

    (winner,) = read(chain.output_dir / "winners.json")["winners"]
    assert space.from_choices(winner["replaced"][0]["architecture"]) == first
    too_slow = winner["replaced"][0]["latency_ms"]["local-cpu"]
    assert too_slow["interval"][0] > budget_ms
    assert too_slow["measured_p50"] == pytest.approx(promised_ms / TOO_SMALL, rel=0.05)
    figures = winner["latency_ms"]["local-cpu"]
    assert winner["architecture"] != chosen["architecture"]
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
    _, path, truth = optimistic
    budget_ms = 0.8 * float(truth.predict_all().min())
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
    shrink_correction(path)
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
