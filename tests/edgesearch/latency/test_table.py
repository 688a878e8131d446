"""What edgesearch keeps in a latency table, on tables that were written by hand."""

import json
from dataclasses import asdict, replace

import pytest

from devices import DeviceSpec, take_fingerprint
from edgesearch.errors import LatencyError
from edgesearch.families import load_space
from edgesearch.latency.correction import Correction
from edgesearch.latency.table import (
    about_network,
    correction_notes,
    current_correction,
    describe,
    keep_correction,
    measured_networks,
    steadiness_of,
)
from profilers import LatencyTable, MeasureConfig

SPACE = load_space("resnet_tiny")
FITTED = Correction(0.1, 1.0, 1.1, 12, 0.011, 0.0, False, 0.02, 1.05)


CHECKED = {"n": 2, "mape": 0.025, "worst": 0.06, "held_out": True}


@pytest.fixture
def table(tmp_path):
    """One session that wanted nine rounds, and made three of a block and of three networks."""
    header = {
        "format": 1,
        "device": DeviceSpec("local-cpu").to_dict(),
        "fingerprint": take_fingerprint("onnxruntime", "1.0").to_dict(),
    }
    session = {"type": "session", "session": 1, "fingerprint": {}}
    lines = [header, {**session, "measure": MeasureConfig(rounds=9).to_dict()}]
    networks = {"network": SPACE.smallest, "validation": SPACE.largest, "winner": SPACE.largest}
    for number in (1, 2, 3):
        for kind in ("block", *networks):
            line = {"kind": kind, "key": f"of {kind}", "session": 1, "round": number}
            if kind in networks:
                line["about"] = about_network(SPACE, networks[kind])
            lines.append({**line, "samples_ms": [1.0, 2.0, 3.0]})
    path = tmp_path / "table.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return LatencyTable.load(path)


def test_networks_are_those_of_a_space_and_of_some_kinds(table):
    network, winner = measured_networks(table, SPACE)
    assert (network.key, network.architecture) == ("of network", SPACE.smallest)
    assert (winner.key, winner.architecture) == ("of winner", SPACE.largest)
    assert (network.low_ms, network.median_ms) == (1, 2)
    (held_out,) = measured_networks(table, SPACE, "validation")
    assert held_out.key == "of validation"
    assert measured_networks(table, replace(SPACE, in_channels=1)) == []


def test_the_last_correction_counts_and_takes_over_what_is_known(table):
    assert current_correction(SPACE, table) is None
    keep_correction(SPACE, table, FITTED, rounds=3, last_session=1)
    again = replace(FITTED, scale=2.0)
    keep_correction(SPACE, table, again, validation=CHECKED)
    for each in (table, LatencyTable.load(table.path)):
        assert current_correction(SPACE, each) == again
        note = correction_notes(each)[SPACE.space_hash]
        assert (note.rounds, note.last_session, note.validation["n"]) == (3, 1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space_hash": 7}, "space_hash 7"),
        ({"rounds": "12"}, "rounds '12'"),
        ({"rounds": -1}, "rounds -1"),
        ({"validation": {"n": 24, "mape": 0.02}}, "worst"),
        ({"validation": {"n": 24, "mape": "small", "worst": 0.1}}, ""),
        ({"validation": 0.1}, ""),
        ({"correction": {**asdict(FITTED), "scale": "1"}}, "scale '1'"),
        ({"correction": {}}, "offset_ms"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_damaged_note_is_named_with_its_line(table, change, message):
    note = {"space_hash": "cafe", "correction": asdict(FITTED), **change}
    table.append_note("edgesearch", note)
    table = LatencyTable.load(table.path)
    message = f"corrections that .* wrote in {table.path}; found: line 15: .*{message}"
    with pytest.raises(LatencyError, match=message):
        correction_notes(table)


def test_rounds_that_were_asked_for_in_the_end_decide_whether_it_settled(table):
    every = {"of block", "of network", "of validation", "of winner"}
    assert set(steadiness_of(table).unsettled) == every
    keep_correction(SPACE, table, FITTED, rounds=3, last_session=1)
    # Networks held out are another command's.
    assert steadiness_of(table).unsettled == ("of validation",)


def test_a_table_is_described_with_the_errors_of_its_predictions(table):
    said = describe(table).split("\n")
    held = "It holds 1 block, 1 whole network, 1 held-out network and 1 exported winner"
    assert any(held in line for line in said)
    assert said[-1].startswith("No correction is fitted to it")
    keep_correction(SPACE, table, FITTED)
    begin = f"Predictions for space {SPACE.space_hash[:8]} are fitted to 12 networks: mean error"
    begin += " 1.1%, leave-one-out error 2.0%"
    assert describe(table).split("\n")[-1] == f"{begin}; not validated on held-out networks yet."
    keep_correction(SPACE, table, FITTED, validation=CHECKED)
    assert describe(table).split("\n")[-1] == f"{begin}; 2.5% (worst 6.0%) on 2 held out."
    single = replace(FITTED, networks=1, loo_mape=None)
    keep_correction(SPACE, table, single, validation={**CHECKED, "n": 1, "held_out": False})
    begin = f"Predictions for space {SPACE.space_hash[:8]} are fitted to 1 network: mean error 1.1%"
    last = describe(table).split("\n")[-1]
    assert last == f"{begin}; 2.5% (worst 6.0%) on 1 of these, measured again."
