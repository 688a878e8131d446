"""Several budgets, devices and searches, on a finished run."""

import json
import re

import pytest

from devices import load_device


def read(path):
    return json.loads(path.read_text("utf-8"))


@pytest.fixture
def two_devices(chain):
    """The table of the device, and one of a board that takes three times as long."""
    (table,) = (chain.output_dir / "latency").glob("*.jsonl")
    board = load_device("raspberry-pi-5", transport="local")
    lines = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    lines[0]["device"] = board.to_dict()
    lines[0]["fingerprint"].update(chip="Raspberry Pi 5", runtime_version="1.20.0")
    for line in lines:
        if "samples_ms" in line:
            line["samples_ms"] = [3 * ms for ms in line["samples_ms"]]
            if line.get("cold_ms") is not None:
                line["cold_ms"] *= 3
        if line.get("type") == "note":
            line["correction"]["offset_ms"] *= 3
            line["correction"]["per_block_ms"] *= 3
    path = table.with_name(f"{board.name}-{board.identity}.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return chain


def searched(chain, *overrides):
    done = chain.call("search", *overrides)
    assert done.returncode == 0, done.stderr
    return done


def test_each_budget_of_a_list_has_winners(chain):
    """Also: nothing is scored twice when only budgets change."""
    found = read(chain.output_dir / "winners.json")
    all_found = found["winners"] + found["reserves"]
    tight = sorted(w["latency_ms"]["local-cpu"]["predicted"] for w in all_found)[-1]
    before = (chain.output_dir / "search/trials.jsonl").read_text("utf-8").splitlines()
    done = searched(chain, f"search.budgets.latency_ms=[{tight!r},1000]", "search.reserves=2")
    assert "12 scores of a former search are taken over from" in done.stderr
    after = (chain.output_dir / "search/trials.jsonl").read_text("utf-8").splitlines()
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)
    written = read(chain.output_dir / "winners.json")
    figures = [w["latency_ms"]["local-cpu"] for w in written["winners"]]
    assert [f["budget"] for f in figures] == [tight, 1000]
    assert figures[0]["predicted"] <= tight
    assert [w["name"] for w in written["winners"]] == ["w0", "w1"]
    reserves = [r["latency_ms"]["local-cpu"] for r in written["reserves"]]
    assert [r["budget"] for r in reserves] == [tight, tight, 1000, 1000]
    assert all(r["predicted"] <= r["budget"] for r in reserves)
    assert f"latency ≤ {tight:.3f} and 1000.000 ms, each by itself" in done.stdout
    assert "budget ms" in done.stdout
    # Measured by a busy machine, none might keep the first one; both of these are kept by any.
    searched(chain, "search.budgets.latency_ms=[900,1000]", "search.reserves=2")
    exported = chain.call("export", "export.tensorrt=")
    assert exported.returncode == 0, exported.stderr
    assert "900.000 ms" in exported.stdout and "1000.000 ms" in exported.stdout
    assert (chain.output_dir / "engines/w1/subnet.onnx").exists()


def test_each_share_of_a_list_has_winners(chain):
    where = "search.budgets={latency_of_largest: [0.8, 1.0], macs: 700000}"
    done = json.loads(searched(chain, where, "--json").stdout)
    written = read(chain.output_dir / "winners.json")
    budgets = [w["latency_ms"]["local-cpu"]["budget"] for w in written["winners"]]
    assert budgets[0] == pytest.approx(0.8 * budgets[1])
    assert done["latency_budget_ms"] == budgets
    assert all(
        found["latency_ms"]["local-cpu"]["predicted"] <= found["latency_ms"]["local-cpu"]["budget"]
        for found in written["winners"] + written["reserves"]
    )
    nothing = chain.call("search", "search.budgets={latency_of_largest: 0.001}")
    assert nothing.returncode == 2
    said = f"(search.budgets.latency_of_largest is a share of {budgets[1]:.4g} ms)"
    assert "the least that this space reaches is" in nothing.stderr
    assert re.search(rf"latency_ms ≤ [\d.e-]+ {re.escape(said)}", nothing.stderr)
    # What else binds is told without it.
    where = "search.budgets={latency_of_largest: 1.0, macs: 5}"
    few = chain.call("search", where).stderr
    assert f"{said}, macs ≤ 5" in few
    assert few.count("latency_of_largest") == 1


def test_front_and_picture(chain):
    searched(chain, "search.evaluations=13")
    facts = read(chain.output_dir / "search/pareto.json")
    (front,) = facts["fronts"].values()
    assert list(facts["fronts"]) == ["local-cpu"]
    latencies = [trial["latency_ms"] for trial in front]
    assert latencies == sorted(latencies)
    agreements = [trial["agreement"] for trial in front]
    assert agreements == sorted(set(agreements))
    assert all(t["weight_bytes"] == 4 * t["params"] and t["activation_bytes"] > 0 for t in front)
    assert (chain.output_dir / "search/pareto.png").read_bytes().startswith(b"\x89PNG")


def test_two_devices_bind_together(two_devices):
    chain = two_devices
    (winner,) = read(chain.output_dir / "winners.json")["winners"]
    bound = 3 * winner["latency_ms"]["local-cpu"]["predicted"]
    where = f'search.budgets.devices={{"raspberry-pi-5":{{"latency_ms":{bound!r}}}}}'
    done = searched(chain, where)
    assert "predicted ms on raspberry-pi-5" in done.stdout
    written = read(chain.output_dir / "winners.json")
    for found in written["winners"] + written["reserves"]:
        here, there = (found["latency_ms"][name] for name in ("local-cpu", "raspberry-pi-5"))
        assert there["predicted"] == pytest.approx(3 * here["predicted"])
        assert there["predicted"] <= there["budget"] == bound
        assert here["budget"] == 1000
    assert set(read(chain.output_dir / "search/pareto.json")["fronts"]) == {
        "local-cpu",
        "raspberry-pi-5",
    }
    exported = chain.call("export", "export.tensorrt=")
    assert exported.returncode == 0, exported.stderr
    assert "w0 on raspberry-pi-5: predicted" in exported.stdout


def test_a_device_without_a_table_says_the_command(chain):
    done = chain.call("search", 'search.budgets.devices={"raspberry-pi-5":{"latency_ms":9}}')
    assert done.returncode == 2
    assert "search.budgets.devices.raspberry-pi-5" in done.stderr
    command = "Run `edgesearch profile` with the same configuration and device.name=raspberry-pi-5"
    assert command in " ".join(done.stderr.split())
    assert "device.host=NAME if it is another machine" in done.stderr


def test_trials_of_another_configuration_name_the_field(chain):
    folder = chain.output_dir / "search"
    first, rest = (folder / "trials.jsonl").read_text("utf-8").split("\n", 1)
    header = json.loads(first)
    header["identity"]["search.images"] = 63
    (folder / "trials.jsonl").write_text(json.dumps(header) + "\n" + rest, "utf-8")
    record = read(folder / "stage.json")
    (folder / "stage.json").write_text(json.dumps({**record, "finished": False}), "utf-8")
    done = chain.call("search")
    assert done.returncode == 2
    assert "trials with search.images 64 in" in " ".join(done.stderr.split())
    assert "found: search.images 63" in " ".join(done.stderr.split())
