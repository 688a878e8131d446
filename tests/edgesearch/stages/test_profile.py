"""The table's way into the search: what fits, what is refused, what counts as a change."""

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from devices import load_device
from devices.errors import EngineError
from edgesearch.errors import Interrupted, StageError
from edgesearch.families import known_spaces, load_space, space_from_dict
from edgesearch.latency.tell_table import tell_doubt
from edgesearch.latency.workloads import (
    correction_networks,
    network_key,
    networks_to_measure,
)
from edgesearch.run.layout import Layout
from edgesearch.stages.profile import (
    current_correction,
    load_table,
    profile,
    table_digest,
    winner_key,
)
from profilers import (
    LatencyTable,
    MeasureConfig,
    TableError,
    TableMismatchError,
    open_meter,
    slowdown_of,
)
from profilers.measure import Measurement
from profilers.workload import REFERENCE_KEY


@pytest.fixture(scope="module")
def device():
    return load_device("local-cpu")


@pytest.fixture(scope="module")
def space(finished):
    manifest = finished[0].output_dir / "engines/w0/manifest.json"
    return space_from_dict(json.loads(manifest.read_text("utf-8"))["space"])


@pytest.fixture
def path(chain, device):
    return Layout(chain.output_dir).table(device)


def append(path, **values):
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def block_of(path):
    """The values of the last block that was measured."""
    lines = map(json.loads, path.read_text("utf-8").splitlines()[1:])
    return [line for line in lines if "type" not in line][-1]


def test_a_table_of_the_device_and_space_is_taken(path, space, device):
    table = load_table(path, space, device)
    assert current_correction(space, table).networks >= 6


@pytest.mark.parametrize(
    ("field", "value"),
    [("threads", 2), ("batch", 4), ("precision", "fp16"), ("name", "board")],
)
def test_a_table_of_another_device_names_the_field(path, space, device, field, value):
    other = replace(device, **{field: value})
    message = f"must be of {field} {value!r}; found: {field} {getattr(device, field)!r}"
    with pytest.raises(TableMismatchError, match=message):
        load_table(path, space, other)


def test_no_table(tmp_path, space, device):
    message = "the latency table of local-cpu at .*; found: no such file. Run `edgesearch profile`"
    with pytest.raises(StageError, match=message):
        load_table(tmp_path / "a.jsonl", space, device)


def test_a_table_of_another_space_names_a_block_that_it_lacks(path, device):
    tiny = load_space("resnet_tiny", in_channels=1)
    message = r"of the space 'resnet_tiny' at .*; found: \d+ of its blocks are not in it, the first"
    with pytest.raises(StageError, match=message):
        load_table(path, tiny, device)


def test_a_table_without_a_correction(path, space, device):
    lines = path.read_text("utf-8").splitlines()
    kept = [line for line in lines if json.loads(line).get("type") != "correction"]
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    with pytest.raises(StageError, match="found: blocks, but no correction for this space"):
        load_table(path, space, device)


def test_what_export_appends_is_no_change(path, space):
    before = table_digest(path)
    network = {
        "type": "network",
        "session": 9,
        "round": 1,
        "samples_ms": [1.0],
        "architecture": dict(space.largest),
        "space_hash": space.space_hash,
    }
    append(path, type="correction", space_hash=space.space_hash, offset_ms=1)
    append(path, key=winner_key(space.largest, "features", 2), **network)
    append(path, type="overhead", key="overhead", session=9, round=1, samples_ms=[1.0])
    append(path, type="reference", key="reference", session=9, round=1, samples_ms=[1.0])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"type": "network", "architecture": {"stem_width": 4}')
    assert table_digest(path) == before


def test_blocks_and_networks_are_a_change(path, space):
    digests = {table_digest(path)}
    append(path, **block_of(path))
    digests.add(table_digest(path))
    append(path, type="network", key="network/x", session=9, round=1, samples_ms=[1.0])
    digests.add(table_digest(path))
    append(path, key="head/in1/hw1", session=9, error="cannot")
    digests.add(table_digest(path))
    assert len(digests) == 4


def test_to_fail_again_is_no_change_and_to_run_after_all_is_one(path):
    error = {"key": "head/in1/hw1", "error": "no memory"}
    append(path, session=9, **error)
    before = table_digest(path)
    append(path, session=10, **{**error, "error": "still none"})
    assert table_digest(path) == before
    append(path, key=error["key"], session=11, round=1, samples_ms=[1.0])
    measured = table_digest(path)
    append(path, session=12, **error)
    assert len({before, measured, table_digest(path)}) == 3


def test_more_rounds_refit_the_correction(chain, path, space, device):
    measure = MeasureConfig(rounds=5, max_rounds=1000)  # until so many are undisturbed
    former = current_correction(space, LatencyTable.load(path))
    made = profile(
        space=space,
        device=device,
        output_dir=chain.output_dir,
        measure=measure,
        networks=7,
    )
    assert not made.skipped
    table = LatencyTable.load(path)
    assert min(map(table.rounds, table.keys())) >= 5  # disturbed ones are made again
    assert current_correction(space, table) == made.correction != former
    again = profile(
        space=space,
        device=device,
        output_dir=chain.output_dir,
        measure=measure,
        networks=7,
    )
    assert again.skipped
    assert again.correction == made.correction


def test_a_file_that_is_no_table_is_refused_and_left_alone(chain, path, space, device):
    path.write_text("notes\n", encoding="utf-8")
    with pytest.raises(TableError, match="must be a latency table; found: .*'notes"):
        profile(
            space=space, device=device, output_dir=chain.output_dir, measure=MeasureConfig(rounds=2)
        )
    assert path.read_text("utf-8") == "notes\n"


@pytest.mark.parametrize("count", [6, 8, 12])
def test_networks_of_the_correction_span_the_space(count):
    tiny = load_space("resnet_tiny")
    networks = correction_networks(tiny, count)
    assert len(networks) == len(set(networks)) == count
    assert (networks[0], networks[-1]) == (tiny.smallest, tiny.largest)
    macs = [tiny.macs(architecture) for architecture in networks]
    assert macs == sorted(macs)
    assert networks == correction_networks(tiny, count)


@pytest.mark.parametrize("count", [6, 8, 12])
@pytest.mark.parametrize("name", known_spaces())
def test_networks_of_the_correction_cover_each_dimension(name, count):
    space = load_space(name)
    networks = correction_networks(space, count)
    assert len(networks) == count
    for dimension, values in space.choices.items():
        found = {architecture[dimension] for architecture in networks}
        assert len(found) == min(len(values), count), dimension


def test_twelve_networks_cover_a_space_of_one_resolution():
    space = load_space("resnet50to101", resolutions=[128])
    chosen = [a for a in correction_networks(space, 12)]
    depths = {choices["stage3_depth"] for choices in chosen}
    assert len(depths) == 12, "of 13"
    for dimension, values in space.choices.items():
        if dimension != "stage3_depth":
            assert {choices[dimension] for choices in chosen} == set(values)


@pytest.mark.parametrize("name", known_spaces())
def test_networks_of_the_correction_determine_its_fit_everywhere(name):
    # The variance of a predicted relative error, in units of that of one measured network, with
    # MACs standing for latencies: below one for most architectures, and bounded for all.
    space = load_space(name)
    macs = space.sum_over_blocks(lambda block: block.macs)
    counts = space.sum_over_blocks(lambda block: 1.0)
    rows = np.stack([np.ones(space.size), macs / macs.mean(), counts], axis=1) / macs[:, None]
    of_networks = rows[[space.index(a) for a in correction_networks(space, 12)]]
    inverse = np.linalg.inv(of_networks.T @ of_networks)
    variances = np.einsum("ij,jk,ik->i", rows, inverse, rows)
    assert variances.mean() < 0.2
    assert variances.max() < 3


def test_networks_without_failed_blocks_are_chosen():
    space = load_space("resnet50to101")
    failed = {
        space.parts[0].blocks(size, width)[0].key
        for width in space.stem_widths[1:]
        for size in (224, 256)
    }
    networks = correction_networks(space, 12, failed)
    assert len(networks) == len(set(networks)) == 12
    assert all(failed.isdisjoint(b.key for b in space.blocks(a)) for a in networks)
    everything = {
        space.parts[0].blocks(r, w)[0].key for w in space.stem_widths for r in space.resolutions
    }
    assert correction_networks(space, 12, everything) == []


def test_networks_that_a_table_has_stay(chain, path, space, device):
    # As if it were of a version that chose others.
    chosen = correction_networks(space, 6)
    others = [a for a in space if a not in chosen][:6]
    text = path.read_text("utf-8")
    for network, other in zip(chosen, others, strict=True):
        key, renamed = (network_key("network", space, a) for a in (network, other))
        text = text.replace(key, renamed).replace(
            f'"architecture": {json.dumps(dict(network))}, "space_hash"',
            f'"architecture": {json.dumps(dict(other))}, "space_hash"',
        )
    path.write_text(text, "utf-8")
    table = LatencyTable.load(path)
    assert networks_to_measure(space, table, 6) == networks_in(table, space)
    assert set(networks_in(table, space)) == set(others)
    again = profile(
        space=space,
        device=device,
        output_dir=chain.output_dir,
        measure=MeasureConfig(rounds=4),
        networks=6,
    )
    assert again.skipped
    assert path.read_text("utf-8") == text
    assert networks_to_measure(space, table, 7) == correction_networks(space, 7)


class StoppedMeter:
    """A real meter of which a key fails, or that is stopped after some rounds of it."""

    def __init__(self, device, key, fails=False, stops_after=None):
        self.meter = open_meter(device)
        self.fingerprints = self.meter.fingerprints
        self.key, self.fails, self.stops_after = key, fails, stops_after

    def measure(self, workloads, anchors, config, history):
        others = [workload for workload in workloads if workload.key != self.key]
        if self.fails and len(others) < len(workloads):
            yield Measurement(1, self.key, EngineError("memory", "none", "Free some."))
            workloads = others
        rounds = 0
        for found in self.meter.measure(workloads, anchors, config, history):
            yield found
            rounds += found.key == self.key
            if rounds == self.stops_after:
                raise KeyboardInterrupt

    def close(self):
        self.meter.close()


def test_a_stopped_retry_of_what_failed_goes_on(space, device, tmp_path, monkeypatch):
    key = space.blocks(space.largest)[0].key
    measure = MeasureConfig(rounds=8, interval=1.0, max_rounds=1000)

    def profiled(**options):
        meter = partial(StoppedMeter, key=key, **options)
        monkeypatch.setattr(sys.modules["edgesearch.stages.profile"], "open_meter", meter)
        return profile(
            space=space,
            device=device,
            output_dir=tmp_path,
            measure=measure,
            networks=6,
            retry_errors=True,
        )

    assert profiled(fails=True).failed_blocks == (key,)
    with pytest.raises(Interrupted):
        profiled(stops_after=2)
    made = profiled()
    assert not made.skipped and not made.failed_blocks
    assert LatencyTable.load(made.table_path).rounds(key) >= 8
    assert profiled().skipped


def networks_in(table, space):
    found = [n for n in table.networks(space.space_hash) if n.key.startswith("network/")]
    return [space.from_choices(network.architecture) for network in found]


def test_a_space_with_few_architectures_has_fewer_networks():
    two = load_space("resnet_tiny", stem_widths=[16])
    assert len(correction_networks(two, 6)) <= two.size


@pytest.mark.parametrize(
    ("quotient", "doubted"), [(1, False), (1.2, False), (1.3, True), (0.7, True)]
)
def test_a_slowdown_that_the_reference_does_not_share_is_told(path, quotient, doubted):
    found = slowdown_of(LatencyTable.load(path))
    # What the first session measured, but for the reference, is made so much faster or slower.
    factor = found.work / found.reference / quotient
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for line in lines:
        if line.get("session") == 1 and line.get("samples_ms") and line["key"] != REFERENCE_KEY:
            line["samples_ms"] = [factor * each for each in line["samples_ms"]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    told = []
    tell_doubt(LatencyTable.load(path), "export", told.append)
    assert bool(told) == doubted
    if doubted:
        slower = f"{quotient * found.reference:.2f} times as long as when it was begun"
        assert f"the fastest runs of networks of {path} took {slower}" in told[0].message
        assert (
            f"those of the reference workload {found.reference:.2f} times: the" in told[0].message
        )
