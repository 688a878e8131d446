"""The model on a table whose samples were made up, so that every figure is known."""

import json
import math

import pytest

from devices import DeviceSpec, OnnxRuntime, take_fingerprint
from edgesearch.errors import LatencyError
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.table import about_network
from profilers import LatencyTable, MissingKeyError

SPACE = ResNetSpace(
    name="two stages",
    block="basic",
    stem="small",
    stem_widths=(4, 8),
    stage_widths=((4, 8), (8, 16)),
    stage_depths=((1, 2), (1, 2, 3)),
    resolutions=(16, 24),
)
BLOCKS = {b.key: b for size in SPACE.resolutions for b in SPACE.distinct_blocks(size)}


def cost_ms(key):
    return 0.01 + BLOCKS[key].macs / 1e6


def write_table(path, networks, *, without=(), failed=(), per_param_ms=0.0, crowding_ms=0.0):
    runtime = OnnxRuntime()
    header = {
        "format": 1,
        "device": DeviceSpec("local-cpu").to_dict(),
        "fingerprint": take_fingerprint(runtime.name, runtime.version).to_dict(),
        "measure": {},
    }
    lines = [header]
    reference = {"kind": "reference", "key": "reference", "session": 1, "round": 1}
    lines.append({**reference, "samples_ms": [1.0]})
    for key in BLOCKS:
        line = {"kind": "block", "key": key, "session": 1}
        if key in failed:
            lines.append({**line, "error": "no kernel"})
        elif key not in without:
            lines.append({**line, "round": 1, "samples_ms": [cost_ms(key)]})
    for architecture in networks:
        total = sum(cost_ms(block.key) for block in SPACE.blocks(architecture))
        line = {"kind": "network", "key": f"network/{architecture}", "session": 1, "round": 1}
        line["about"] = about_network(SPACE, architecture)
        params = SPACE.params(architecture)
        weights_ms = per_param_ms * params + crowding_ms * (params / 1e6) ** 3
        lines.append({**line, "samples_ms": [0.5 + 1.25 * total + weights_ms]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return LatencyTable.load(path)


def some(count):
    step = SPACE.size // count
    return [SPACE.architecture(index * step) for index in range(count)]


def test_predicts_networks_that_were_not_measured(tmp_path):
    model = LatencyModel.from_table(SPACE, write_table(tmp_path / "t.jsonl", some(8)))
    everything = model.predict_all()
    assert everything.shape == (SPACE.size,)
    for index, architecture in enumerate(SPACE):
        total = sum(cost_ms(block.key) for block in SPACE.blocks(architecture))
        assert everything[index] == pytest.approx(0.5 + 1.25 * total)
        assert model.predict(architecture).median_ms == pytest.approx(everything[index])


def test_predicts_what_weights_from_memory_cost(tmp_path):
    table = write_table(tmp_path / "t.jsonl", some(12), per_param_ms=3e-5)
    model = LatencyModel.from_table(SPACE, table)
    assert model.correction.per_million_params_ms == pytest.approx(30)
    everything = model.predict_all()
    for index, architecture in enumerate(SPACE):
        total = sum(cost_ms(block.key) for block in SPACE.blocks(architecture))
        expected = 0.5 + 1.25 * total + 3e-5 * SPACE.params(architecture)
        assert everything[index] == pytest.approx(expected)
        assert model.predict(architecture).median_ms == pytest.approx(expected)


def test_weights_that_compete_for_room_are_shared_out_among_the_blocks(tmp_path):
    table = write_table(tmp_path / "t.jsonl", some(24), crowding_ms=4e5)
    model = LatencyModel.from_table(SPACE, table)
    assert model.correction.crowding_ms == pytest.approx(4e5)
    everything = model.predict_all()
    for index, architecture in enumerate(SPACE):
        total = sum(cost_ms(block.key) for block in SPACE.blocks(architecture))
        crowded_ms = 4e5 * (SPACE.params(architecture) / 1e6) ** 3
        assert everything[index] == pytest.approx(0.5 + 1.25 * total + crowded_ms)
        assert model.predict(architecture).median_ms == pytest.approx(everything[index])
        costs_ms = model.block_costs_ms(architecture)
        assert model.offset_ms + sum(costs_ms) == pytest.approx(everything[index])


def test_a_block_that_cannot_run_makes_its_networks_impossible(tmp_path):
    broken = SPACE.blocks(SPACE.largest)[1].key
    fine = [a for a in some(40) if broken not in {b.key for b in SPACE.blocks(a)}]
    table = write_table(tmp_path / "t.jsonl", fine[:8], failed=[broken])
    model = LatencyModel.from_table(SPACE, table)
    needs_it = [broken in {block.key for block in SPACE.blocks(a)} for a in SPACE]
    assert any(needs_it)
    assert not all(needs_it)
    assert [math.isinf(ms) for ms in model.predict_all()] == needs_it
    assert math.isinf(model.predict(SPACE.largest).p95_ms)


def test_a_repeated_block_that_cannot_run_leaves_networks_without_it(tmp_path):
    broken = SPACE.blocks(SPACE.largest)[-2].key  # the last of its stage
    fine = [a for a in SPACE if broken not in {b.key for b in SPACE.blocks(a)}]
    table = write_table(tmp_path / "t.jsonl", fine[:8], failed=[broken])
    model = LatencyModel.from_table(SPACE, table)
    possible = {a for a, ms in zip(SPACE, model.predict_all(), strict=True) if math.isfinite(ms)}
    assert possible == set(fine)
    assert 1 < len(fine) < SPACE.size


def cold_table(path, networks):
    """Networks take 0.2 ms + 0.9 × cold blocks - 0.003 ms × their number."""
    table = write_table(path, networks)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[2:]:
        if line["key"] in BLOCKS:
            line["cold_ms"] = cold_ms(line["key"])
        else:
            architecture = SPACE.from_choices(line["about"]["architecture"])
            line["samples_ms"] = [law_ms(architecture)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return LatencyTable.load(table.path)


def cold_ms(key):
    return 0.02 + 3 * math.sqrt(BLOCKS[key].params) / 1e3


def law_ms(architecture):
    blocks = SPACE.blocks(architecture)
    return 0.2 + 0.9 * sum(cold_ms(block.key) for block in blocks) - 0.003 * len(blocks)


def test_cold_blocks_count_where_they_predict_better(tmp_path):
    model = LatencyModel.from_table(SPACE, cold_table(tmp_path / "t.jsonl", some(10)))
    assert model.correction.cold
    assert model.correction.per_block_ms == pytest.approx(-0.003)
    everything = model.predict_all()
    for index, architecture in enumerate(SPACE):
        assert everything[index] == pytest.approx(law_ms(architecture))
        assert model.predict(architecture).median_ms == pytest.approx(everything[index])


def test_without_all_cold_runs_the_warm_ones_count(tmp_path):
    path = tmp_path / "t.jsonl"
    correction = LatencyModel.from_table(SPACE, cold_table(path, some(10))).correction
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    del next(line for line in lines if "cold_ms" in line)["cold_ms"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = LatencyTable.load(path)
    assert not LatencyModel.from_table(SPACE, table).correction.cold
    with pytest.raises(LatencyError, match="blocks measured with cold caches .*; found: none"):
        LatencyModel.from_table(SPACE, table, correction)


def test_a_missing_block_is_named(tmp_path):
    gone = SPACE.blocks(SPACE.largest)[2].key
    table = write_table(tmp_path / "t.jsonl", some(8), without=[gone])
    with pytest.raises(MissingKeyError, match=gone):
        LatencyModel.from_table(SPACE, table)


@pytest.mark.parametrize("count", [0, 5])
def test_too_few_networks_are_refused(tmp_path, count):
    table = write_table(tmp_path / "t.jsonl", some(5)[:count])
    with pytest.raises(
        LatencyError, match=rf"found: {count} in the latency table.*edgesearch profile"
    ):
        LatencyModel.from_table(SPACE, table)


def test_blocks_that_cannot_run_are_named_where_too_few_networks_are_left(tmp_path):
    stems = [key for key in BLOCKS if key.startswith("stem")]
    table = write_table(tmp_path / "t.jsonl", some(8), failed=stems)
    message = (
        rf"at least 1 whole subnet\(s\) that local-cpu can run; found: 0; {len(stems)} of its "
        rf"blocks and subnets cannot run, {min(stems)} because of: no kernel. If the cause has"
    )
    with pytest.raises(LatencyError, match=message):
        LatencyModel.from_table(SPACE, table)


def test_a_network_that_was_measured_again_counts_as_measured_last(tmp_path):
    path = tmp_path / "t.jsonl"
    quiet = LatencyModel.from_table(SPACE, write_table(path, some(8))).correction
    for sample_ms in (50.0, 0.5 + 1.25 * sum(cost_ms(b.key) for b in SPACE.blocks(SPACE.largest))):
        line = {"kind": "winner", "key": f"winner/features/{sample_ms}", "session": 1, "round": 1}
        line["about"] = about_network(SPACE, SPACE.largest)
        with path.open("a") as file:
            file.write(json.dumps({**line, "samples_ms": [sample_ms]}) + "\n")
    again = LatencyModel.from_table(SPACE, LatencyTable.load(path)).correction
    assert again.scale == pytest.approx(quiet.scale)
    assert again.networks == quiet.networks + 1
