"""Several budgets and devices, on a finished run."""

import re

import pytest

from devices import load_device
from edgesearch.latency.load_table import corrected_model
from profilers import LatencyTable


@pytest.fixture
def two_devices(chain):
    """The table of the device, and one of a board that takes three times as long."""
    board = load_device("raspberry-pi-5", transport="local")

    def change(lines):
        lines[0]["device"] = board.to_dict()
        lines[0]["fingerprint"].update(chip="Raspberry Pi 5", runtime_version="1.20.0")
        for line in lines:
            if "samples_ms" in line:
                line["samples_ms"] = [3 * ms for ms in line["samples_ms"]]
                if "cold_ms" in line:  # not if that run was interrupted
                    line["cold_ms"] *= 3
            for name in line.get("correction", ()):
                if name.endswith("_ms"):
                    line["correction"][name] *= 3
        return lines

    path, own = chain.table, chain.table.read_text("utf-8")
    chain.change_table(change)
    path.rename(path.with_name(f"{board.name}-{board.identity}.jsonl"))
    path.write_text(own, "utf-8")
    return chain


def found_by(chain):
    """The figures of winners and of reserves."""
    written = chain.read("winners.json")
    return [
        [w["latency_ms"]["local-cpu"] for w in written[name]] for name in ("winners", "reserves")
    ]


def predicted_now(chain):
    """Predictions of winners and reserves; an export may have fitted others since the search."""
    (table,) = (chain.output_dir / "latency").glob("local-cpu-*.jsonl")
    model = corrected_model(chain.space, LatencyTable.load(table))
    written = chain.read("winners.json")
    found = written["winners"] + written["reserves"]
    return [model.predict(chain.architecture(each["architecture"])) for each in found]


def test_each_budget_of_a_list_has_winners(chain):
    """Also: nothing is scored twice when only budgets change."""
    tight = max(prediction.median_ms for prediction in predicted_now(chain))
    before = chain.lines("search/trials.jsonl")
    done = chain.passes(
        "search", f"search.budgets.latency_ms=[{tight!r},1000]", "search.reserves=2"
    )
    assert "reusing 12 scores of a former search in" in done.stderr
    after = chain.lines("search/trials.jsonl")
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)
    winners, reserves = found_by(chain)
    assert [figures["budget"] for figures in winners] == [tight, 1000]
    assert [figures["budget"] for figures in reserves] == [tight, tight, 1000, 1000]
    assert all(figures["predicted"] <= figures["budget"] for figures in winners + reserves)
    assert f"latency ≤ {tight:.3f} or 1000.000 ms, separate budgets" in done.stdout
    assert "budget ms" in done.stdout
    # Measured by a busy machine, none might keep the first one; both of these are kept by any.
    chain.passes("search", "search.budgets.latency_ms=[900,1000]", "search.reserves=2")
    exported = chain.passes("export", "export.tensorrt=")
    assert "900.000 ms" in exported.stdout and "1000.000 ms" in exported.stdout
    assert (chain.output_dir / "engines/w1/subnet.onnx").exists()


def test_each_share_of_a_list_has_winners(chain):
    where = "search.budgets={latency_of_largest: [0.8, 1.0], macs: 700000}"
    done = chain.json("search", where)
    winners, reserves = found_by(chain)
    budgets = [figures["budget"] for figures in winners]
    assert budgets[0] == pytest.approx(0.8 * budgets[1])
    assert done["latency_budget_ms"] == budgets
    assert all(figures["predicted"] <= figures["budget"] for figures in winners + reserves)
    said = f"(search.budgets.latency_of_largest × {budgets[1]:.4g} ms)"
    nothing = chain.refuses("search", "search.budgets={latency_of_largest: 0.001}")
    assert "the minimum of this space is" in nothing
    assert re.search(rf"latency_ms ≤ [\d.e-]+ {re.escape(said)}", nothing)
    # What else binds is told without it.
    few = chain.refuses("search", "search.budgets={latency_of_largest: 1.0, macs: 5}")
    assert f"{said}, macs ≤ 5" in few
    assert few.count("latency_of_largest") == 1


def unmarked(text):
    """Without the marks of predictions from a table that was measured on a busy machine."""
    return text.replace(" (?)", "")


def test_a_percentile_binds_beside_the_median_and_is_shown(chain):
    done = chain.passes("run", "search.budgets.latency_p95_ms=500", "export.tensorrt=")
    assert "search.budgets.latency_p95_ms has changed from null to 500" in done.stderr
    ((figures,), _) = found_by(chain)
    assert (figures["budget"], figures["budget_p95"]) == (1000, 500)
    assert figures["predicted"] <= figures["predicted_p95"]
    header, row = done.stdout.splitlines()[:2]
    assert unmarked(header).split("  ")[-3:] == ["predicted p95", "measured p95", "budget p95"]
    measured = f"{figures['measured_p95']:.3f}"
    assert row.split()[-3:] == [f"{figures['predicted_p95']:.3f}", measured, "500.000"]
    assert "budget 1000.000 ms, budget of the 95th percentile 500.000 ms" in done.stdout
    again = chain.passes("search", "search.budgets.latency_p95_ms=500")
    assert "latency ≤ 1000.000 ms, 95th percentile ≤ 500.000 ms, MACs ≤ 700,000)" in again.stdout
    assert "predicted p95" in unmarked(again.stdout)


def test_a_search_proposes_only_what_is_predicted_within_a_percentile(chain):
    budget_ms = sorted(prediction.p95_ms for prediction in predicted_now(chain))[1]
    # Without a bound on the median, only that on the percentile is left.
    percentile = f"search.budgets.latency_p95_ms={budget_ms!r}"
    found = chain.json("search", "search.budgets.latency_ms=", percentile)
    assert found["latency_budget_ms"] is None
    assert found["latency_p95_budget_ms"] == budget_ms
    assert 0 < found["feasible"] < chain.space.size
    for figures in sum(found_by(chain), []):
        assert figures["predicted_p95"] <= figures["budget_p95"] == budget_ms


def test_front_and_picture(finished):
    chain = finished[0]
    facts = chain.read("search/pareto.json")
    assert facts["cannot_run"] == 0
    assert list(facts["fronts"]) == ["local-cpu"]
    front = facts["fronts"]["local-cpu"]
    latencies, agreements = ([t[name] for t in front] for name in ("latency_ms", "agreement"))
    assert latencies == sorted(latencies)
    assert agreements == sorted(set(agreements))
    assert all(t["weight_bytes"] == 4 * t["params"] and t["activation_bytes"] > 0 for t in front)
    assert (chain.output_dir / "search/pareto.png").read_bytes().startswith(b"\x89PNG")


def test_two_devices_bind_together(two_devices):
    chain = two_devices
    bound = 3 * predicted_now(chain)[0].median_ms
    where = f'search.budgets.devices={{"raspberry-pi-5":{{"latency_ms":{bound!r}}}}}'
    assert "predicted ms on raspberry-pi-5" in unmarked(chain.passes("search", where).stdout)
    written = chain.read("winners.json")
    for found in written["winners"] + written["reserves"]:
        here, there = (found["latency_ms"][name] for name in ("local-cpu", "raspberry-pi-5"))
        assert there["predicted"] == pytest.approx(3 * here["predicted"])
        assert there["predicted"] <= there["budget"] == bound
        assert here["budget"] == 1000
    assert set(chain.read("search/pareto.json")["fronts"]) == {"local-cpu", "raspberry-pi-5"}
    exported = chain.passes("export", "export.tensorrt=")
    assert "w0 on raspberry-pi-5: predicted" in exported.stdout


def test_a_device_without_a_table_says_the_command(chain):
    where = 'search.budgets.devices={"raspberry-pi-5":{"latency_ms":9}}'
    said = " ".join(chain.refuses("search", where).split())
    assert "search.budgets.devices.raspberry-pi-5" in said
    command = "Run `edgesearch profile` with the same configuration and device.name=raspberry-pi-5"
    assert command in said
    assert "device.host=NAME if it is another machine" in said


def test_trials_of_another_configuration_name_the_field(chain):
    header, *trials = chain.lines("search/trials.jsonl")
    other = header.replace('"search.images": 64', '"search.images": 63')
    assert other != header
    path = chain.output_dir / "search/trials.jsonl"
    path.write_text("\n".join([other, *trials]) + "\n", "utf-8")
    chain.write("search/stage.json", {**chain.read("search/stage.json"), "finished": False})
    said = " ".join(chain.refuses("search").split())
    assert "trials with search.images 64 in" in said
    assert "found: search.images 63" in said
