"""Predictions against real measurements of networks that the table has not seen."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgesearch.errors import UserError
from edgesearch.families import space_from_dict
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.workloads import correction_networks, held_out_networks
from edgesearch.stages.profile import current_correction, table_digest
from profilers import LatencyTable, median_ratio

CONTRACT = {"n", "mape", "bias", "within_5", "within_10", "kendall_tau", "worst"}


@pytest.fixture(scope="module")
def space(finished):
    manifest = finished[0].output_dir / "engines/w0/manifest.json"
    return space_from_dict(json.loads(manifest.read_text("utf-8"))["space"])


@pytest.fixture
def table_path(chain):
    (path,) = (chain.output_dir / "latency").glob("*.jsonl")
    return path


@pytest.fixture
def validated(chain):
    done = chain.run("validate", "validation.networks=5", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_figures_are_those_of_the_networks(validated):
    assert set(validated) >= CONTRACT
    networks = validated["networks"]
    assert validated["n"] == len(networks) == 5
    predicted = np.array([network["predicted_ms"] for network in networks])
    measured = np.array([network["measured_ms"] for network in networks])
    assert validated["mape"] == pytest.approx(np.abs(predicted / measured - 1).mean())
    assert validated["bias"] == pytest.approx((predicted / measured - 1).mean())
    assert list(measured) == sorted(measured)
    assert -1 <= validated["kendall_tau"] <= 1


def test_they_are_written_beside_the_table_and_into_it(chain, validated, table_path, space):
    report = json.loads(Path(validated["report_path"]).read_text("utf-8"))
    for name in CONTRACT:
        assert report[name] == validated[name]
    assert report["networks"] == validated["networks"]
    assert Path(validated["plot_path"]).read_bytes().startswith(b"\x89PNG\r\n")
    table = LatencyTable.load(table_path)
    kept = table.correction(space.space_hash)["validation"]
    assert kept == {name: validated[name] for name in CONTRACT}


def test_predictions_and_medians_come_from_the_table(validated, table_path, space):
    table = LatencyTable.load(table_path)
    model = LatencyModel.from_table(space, table, current_correction(space, table))
    found = {n.key: n for n in table.networks(space.space_hash, "validation")}
    for network in validated["networks"]:
        measurement = found[f"validation/{space.space_hash[:8]}/{network['architecture']}"]
        architecture = space.from_choices(measurement.architecture)
        assert network["measured_ms"] == measurement.median_ms
        assert network["measured_p95_ms"] == measurement.p95_ms
        assert network["predicted_ms"] == model.predict(architecture).median_ms
        assert network["predicted_p95_ms"] == model.predict(architecture).p95_ms


def test_held_out_networks_tell_predictions_only_how_restless_the_machine_is(
    chain, table_path, space
):
    before, digest = LatencyTable.load(table_path), table_digest(table_path)
    assert chain.run("validate", "validation.networks=3").returncode == 0
    after = LatencyTable.load(table_path)
    assert len(after.networks(space.space_hash, "validation")) == 3
    fits = [LatencyModel.from_table(space, table).correction for table in (before, after)]
    for field in ("offset_ms", "scale", "per_block_ms"):
        former, latter = (getattr(fit, field) / fit.median_ratio for fit in fits)
        assert latter == pytest.approx(former)
    for field in ("cold", "p95_ratio", "networks", "fit_mape", "loo_mape"):
        assert getattr(fits[0], field) == getattr(fits[1], field)
    anchored = [n.key for n in after.networks(space.space_hash)]
    assert fits[1].median_ratio == median_ratio(after, anchored)
    assert current_correction(space, after) == fits[1]
    assert table_digest(table_path) == digest


def test_a_second_time_measures_nothing(chain, validated, table_path):
    sessions = LatencyTable.load(table_path).last_session
    again = chain.run("validate", "validation.networks=5")
    assert LatencyTable.load(table_path).last_session == sessions
    assert f"5 networks: mean error {validated['mape']:.2%}" in again.stdout


def test_without_a_table_the_command_is_named(chain, table_path):
    table_path.unlink()
    done = chain.run("validate")
    assert done.returncode == 2
    assert "Run `edgesearch profile` with the same configuration first." in done.stderr


class TestHeldOutNetworks:
    def test_are_none_that_were_fitted_to(self, space):
        fitted = correction_networks(space, 6)
        drawn = held_out_networks(space, space.size - len(set(fitted)), 0, fitted)
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) | set(fitted) == set(space)
        assert not set(drawn) & set(fitted)

    def test_depend_on_the_seed_alone(self, space):
        assert held_out_networks(space, 8, 0, []) == held_out_networks(space, 8, 0, [])
        assert held_out_networks(space, 8, 0, []) != held_out_networks(space, 8, 1, [])

    def test_more_than_there_are(self, space):
        message = f"at most {space.size - 1} networks .*; found: validation.networks 500"
        with pytest.raises(UserError, match=message):
            held_out_networks(space, 500, 0, [space.largest])
