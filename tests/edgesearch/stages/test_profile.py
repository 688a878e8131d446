"""Tables of latencies: measured, gone on with, judged, and what counts as a change of them."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from devices import load_device
from devices.errors import DeviceError, EngineError, UserNotice
from edgesearch.cli import results
from edgesearch.errors import Interrupted, StageError, UserError
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.load_table import load_table, tell_doubt
from edgesearch.latency.table import (
    correction_notes,
    current_correction,
    measured_networks,
    table_digest,
)
from edgesearch.latency.workloads import correction_networks, network_key, networks_to_measure
from edgesearch.stages.table import share_table
from profilers import LatencyTable, TableMismatchError, open_meter
from profilers.measure import Measurement
from profilers.workload import REFERENCE_KEY

CONTRACT = {"n", "mape", "bias", "within_5", "within_10", "kendall_tau", "worst"}


@pytest.fixture(scope="module")
def device():
    return load_device("local-cpu")


def append(path, **values):
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def networks_in(chain, table):
    return [each.architecture for each in measured_networks(table, chain.space, "network")]


class TestLoading:
    def test_a_table_of_the_device_and_space_is_taken(self, finished, device):
        table = load_table(finished[0].table, finished[0].space, device)
        assert current_correction(finished[0].space, table).networks >= 6

    def test_a_table_of_another_device_names_the_field(self, finished, device):
        other = replace(device, batch=4)
        with pytest.raises(
            TableMismatchError, match="a latency table of batch 4 at .*; found: batch 1"
        ):
            load_table(finished[0].table, finished[0].space, other)

    def test_no_table(self, finished, tmp_path, device):
        message = "latency table of local-cpu at .*; found: no such file. Run `edgesearch profile`"
        with pytest.raises(StageError, match=message):
            load_table(tmp_path / "a.jsonl", finished[0].space, device)

    def test_a_table_without_a_correction(self, chain, device):
        chain.change_table(lambda lines: [n for n in lines if "correction" not in n])
        with pytest.raises(StageError, match="found: blocks, but no correction for this space"):
            load_table(chain.table, chain.space, device)

    def test_a_file_that_is_no_table_is_refused_and_left_alone(self, chain):
        chain.table.write_text("notes\n", encoding="utf-8")
        with pytest.raises(UserError, match="a latency table.*; found: .*'notes"):
            chain.api().profile()
        assert chain.table.read_text("utf-8") == "notes\n"


class TestChanges:
    def test_what_export_appends_is_none(self, chain):
        path, space = chain.table, chain.space
        before = table_digest(path)
        measured = {"session": 9, "round": 1, "samples_ms": [1.0]}
        append(path, type="note", owner="edgesearch", offset_ms=1)
        append(path, kind="winner", key=f"winner/features/{space.largest}/2", **measured)
        append(path, kind="network", key="network/x", anchor=True, **measured)
        append(path, kind="overhead", key="overhead", **measured)
        append(path, kind="reference", key="reference", **measured)
        with path.open("a", encoding="utf-8") as file:
            file.write('{"kind": "network", "about": {"architecture": {"stem_width": 4}')
        with pytest.warns(UserNotice, match="its last line is torn"):
            assert table_digest(path) == before

    def test_blocks_networks_and_errors_are(self, chain):
        lines = map(json.loads, chain.table.read_text("utf-8").splitlines()[1:])
        block = [line for line in lines if line.get("kind") == "block"][-1]
        error = {"kind": "block", "key": "head/in1/hw1", "session": 9, "error": "no memory"}
        measured = {"session": 11, "round": 1, "samples_ms": [1.0]}
        digests = [table_digest(chain.table)]
        for values in (
            block,
            {"kind": "network", "key": "network/x", **measured},
            error,
            {"kind": "block", "key": error["key"], **measured},
            error,
        ):
            append(chain.table, **values)
            digests.append(table_digest(chain.table))
        assert len(set(digests)) == 6
        append(chain.table, **{**error, "session": 12, "error": "still none"})
        assert table_digest(chain.table) == digests[-1]


def test_more_rounds_refit_the_correction(chain):
    former = chain.api().profile().correction
    # Until so many rounds are undisturbed; disturbed ones are made again.
    more = chain.api(profile={"rounds": 5, "max_rounds": 1000, "networks": 7})
    made = more.profile()
    assert not made.skipped
    table = LatencyTable.load(chain.table)
    assert min(map(table.rounds, table.keys())) >= 5
    assert current_correction(chain.space, table) == made.correction != former
    again = more.profile()
    assert again.skipped
    assert again.correction == made.correction


def test_networks_that_a_table_has_stay(chain):
    # As if it were of a version that chose others.
    path, space = chain.table, chain.space
    chosen = correction_networks(space, 6)
    others = [a for a in space if a not in chosen][:6]
    text = path.read_text("utf-8")
    for network, other in zip(chosen, others, strict=True):
        key, renamed = (network_key("network", space, a) for a in (network, other))
        text = text.replace(key, renamed)
        text = text.replace(json.dumps(dict(network)), json.dumps(dict(other)))
    path.write_text(text, "utf-8")
    table = LatencyTable.load(path)
    assert set(networks_to_measure(space, table, 6)) == set(networks_in(chain, table))
    assert set(networks_in(chain, table)) == set(others)
    assert chain.api().profile().skipped
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


def test_a_stopped_profile_goes_on_and_retries_what_failed(empty, monkeypatch):
    key = empty.space.blocks(empty.space.largest)[0].key
    run = empty.api(profile={"rounds": 8, "max_rounds": 1000, "retry_errors": True})

    def profiled(**options):
        meter = partial(StoppedMeter, key=key, **options)
        monkeypatch.setattr(sys.modules["edgesearch.stages.profile"], "open_meter", meter)
        return run.profile()

    assert profiled(fails=True).failed_blocks == (key,)
    before = empty.table.read_bytes()
    with pytest.raises(Interrupted, match="what was measured is in"):
        profiled(stops_after=2)
    assert empty.table.read_bytes().startswith(before)
    made = profiled()
    assert not made.skipped and not made.failed_blocks
    assert LatencyTable.load(made.table_path).rounds(key) >= 8
    assert profiled().skipped


@pytest.mark.parametrize(
    ("quotient", "doubted"), [(1, False), (1.2, False), (1.3, True), (0.7, True)]
)
def test_a_slowdown_that_the_reference_does_not_share_is_told(chain, quotient, doubted):
    found = LatencyTable.load(chain.table).slowdown()
    # What the first session measured, but for the reference, is made so much faster or slower.
    factor = found.work / found.reference / quotient

    def change(lines):
        for line in lines:
            if line.get("session") == 1 and line.get("samples_ms") and line["key"] != REFERENCE_KEY:
                line["samples_ms"] = [factor * each for each in line["samples_ms"]]
        return lines

    chain.change_table(change)
    told = []
    tell_doubt(LatencyTable.load(chain.table), "export", told.append)
    assert bool(told) == doubted
    if doubted:
        slower = f"became {quotient * found.reference:.2f} times as long"
        assert f"{chain.table}, the fastest runs of its networks {slower}" in told[0].message
        reference = f"those of the reference workload {found.reference:.2f} times: the"
        assert reference in told[0].message


@pytest.fixture(scope="module")
def validated(finished, tmp_path_factory):
    """A copy in which five networks were measured, and the result. Do not write into it."""
    chain = finished[0].copied(tmp_path_factory.mktemp("validated"))
    before = LatencyTable.load(chain.table)
    return chain, chain.json("validate", "validation.networks=5"), before


class TestValidation:
    def test_the_figures_are_those_of_the_networks(self, validated):
        _, result, _ = validated
        assert set(result) >= CONTRACT
        networks = result["networks"]
        assert result["n"] == len(networks) == 5
        predicted = np.array([network["predicted_ms"] for network in networks])
        measured = np.array([network["measured_ms"] for network in networks])
        assert result["mape"] == pytest.approx(np.abs(predicted / measured - 1).mean())
        assert result["bias"] == pytest.approx((predicted / measured - 1).mean())
        assert list(measured) == sorted(measured)
        assert -1 <= result["kendall_tau"] <= 1

    def test_they_are_written_beside_the_table_and_into_it(self, validated):
        chain, result, _ = validated
        report = json.loads(Path(result["report_path"]).read_text("utf-8"))
        assert {name: report[name] for name in (*CONTRACT, "networks")} == {
            name: result[name] for name in (*CONTRACT, "networks")
        }
        assert Path(result["plot_path"]).read_bytes().startswith(b"\x89PNG\r\n")
        kept = correction_notes(LatencyTable.load(chain.table))[chain.space.space_hash]
        assert kept.validation == {name: result[name] for name in (*CONTRACT, "held_out")}

    def test_predictions_and_medians_come_from_the_table(self, validated):
        chain, result, _ = validated
        space, table = chain.space, LatencyTable.load(chain.table)
        model = LatencyModel.from_table(space, table, current_correction(space, table))
        found = {n.key: n for n in measured_networks(table, space, "validation")}
        for network in result["networks"]:
            measured = found[f"validation/{space.space_hash[:8]}/{network['architecture']}"]
            predicted = model.predict(measured.architecture)
            assert network["measured_ms"] == measured.median_ms
            assert network["measured_p95_ms"] == measured.p95_ms
            assert network["predicted_ms"] == predicted.median_ms
            assert network["predicted_p95_ms"] == predicted.p95_ms

    def test_held_out_networks_tell_predictions_only_how_restless_the_machine_is(self, validated):
        chain, _, before = validated
        space, after = chain.space, LatencyTable.load(chain.table)
        assert len(measured_networks(after, space, "validation")) == 5
        fits = [LatencyModel.from_table(space, table).correction for table in (before, after)]
        for field in ("offset_ms", "scale", "per_block_ms", "per_million_params_ms"):
            former, latter = (getattr(fit, field) / fit.median_ratio for fit in fits)
            assert latter == pytest.approx(former)
        for field in ("cold", "p95_ratio", "networks"):
            assert getattr(fits[0], field) == getattr(fits[1], field)
        for field in ("fit_mape", "loo_mape"):
            assert getattr(fits[0], field) == pytest.approx(getattr(fits[1], field))
        anchored = [network.key for network in measured_networks(after, space)]
        ratios = [ratio for _, ratio in after.median_ratios(anchored)]
        assert len(ratios) > len(anchored)
        assert fits[1].median_ratio == pytest.approx(np.median(ratios))
        assert current_correction(space, after) == fits[1]

    def test_a_second_time_measures_nothing(self, validated, finished):
        chain, result, _ = validated
        assert table_digest(chain.table) == table_digest(finished[0].table)
        sessions = LatencyTable.load(chain.table).last_session
        again = chain.passes("validate", "validation.networks=5")
        assert LatencyTable.load(chain.table).last_session == sessions
        assert f"5 networks: mean error {result['mape']:.2%}" in again.stdout

    def test_without_a_table_the_command_is_named(self, empty):
        said = "Run `edgesearch profile` with the same configuration first."
        empty.refuses("validate", says=said)


def busy(lines):
    """Lines of a table whose every round was interrupted."""
    is_round = [line.get("kind") in ("block", "network", "winner") for line in lines]
    return [
        {**line, "waited_ms": [0.5 * ms for ms in line["samples_ms"]]}
        if is_one and "samples_ms" in line
        else line
        for line, is_one in zip(lines, is_round, strict=True)
    ]


def test_a_table_that_cannot_be_trusted_is_told_wherever_it_is_used(chain, capsys):
    chain.change_table(busy)
    told = []
    load_table(chain.table, chain.space, chain.api().device, report=told.append)
    assert "these latencies are unreliable: 0 of" in told[-1].message
    result = chain.api().search()
    assert list(result.doubts) == ["local-cpu"]
    results.print_search(result)
    shown = capsys.readouterr().out
    assert "predicted (?) ms" in shown
    assert "(?) latency table of local-cpu: these latencies are unreliable" in shown
    assert "`edgesearch profile CONFIG --again`" in shown
    assert "hese latencies are unreliable" in share_table(chain.table).description


def test_again_measures_anew_and_keeps_the_former_table(chain):
    chain.change_table(busy)
    former = chain.table.read_bytes()
    validated = chain.table.with_suffix(".validation.json")
    validated.write_text("{}")
    told = []
    run = chain.api()
    run.report = told.append
    result = run.profile(again=True)
    kept = chain.table.with_name(f"{chain.table.name}.1")
    assert kept.read_bytes() == former
    assert not validated.exists()
    assert validated.with_name(f"{validated.name}.1").exists()
    assert any(f"the former table is kept as {kept}" in event.message for event in told)
    assert not result.skipped
    assert result.steadiness.interrupted < result.steadiness.rounds
    table = LatencyTable.load(chain.table)
    assert table.last_session == 1
    assert chain.api().profile().skipped
    chain.api().profile(again=True)
    assert chain.table.with_name(f"{chain.table.name}.2").exists()


def test_a_device_that_cannot_measure_leaves_the_table(chain):
    former = chain.table.read_bytes()
    run = chain.api(device={"threads": 1})
    run.__dict__["device"] = replace(run.device, machine="riscv64")
    with pytest.raises(DeviceError, match="architecture riscv64"):
        run.profile(again=True)
    assert chain.table.read_bytes() == former
