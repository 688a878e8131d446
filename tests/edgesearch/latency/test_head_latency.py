"""Predictions of whole models on tables whose samples were made up, so every figure is known."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from devices import DeviceSpec, OnnxRuntime, take_fingerprint
from edgesearch.errors import LatencyError, StageError
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.latency.head_latency import HeadFit, fit_head
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.latency.load_table import corrected_model, load_table
from edgesearch.latency.table import (
    WITH_HEAD,
    about_network,
    current_correction,
    describe,
    head_notes,
    keep_correction,
    keep_head,
    measured_networks,
    table_digest,
)
from edgesearch.latency.workloads import network_key
from edgesearch.tasks.head_costs import HeadCosts, TaskHead
from profilers import LatencyTable

SPACE = ResNetSpace(
    name="two stages",
    block="basic",
    stem="small",
    stem_widths=(4, 8),
    stage_widths=((4, 8), (8, 16)),
    stage_depths=((1, 2), (1, 2, 3)),
    resolutions=(16, 24),
)
HEAD = TaskHead("segmentation", "lraspp", 3)
LINEAR = TaskHead("classification", "linear", 3)
COSTS = {head: HeadCosts(SPACE, head) for head in (HEAD, LINEAR)}
BLOCKS = {b.key: b for size in SPACE.resolutions for b in SPACE.distinct_blocks(size)}


def block_ms(block):
    return 0.01 + block.macs / 1e6


def backbone_ms(architecture, head=None):
    blocks = SPACE.blocks_of_parts(architecture)
    kept = blocks if head is None else blocks[: COSTS[head].last_part + 1]
    return 0.5 + sum(block_ms(block) for own in kept for block in own)


def whole_ms(architecture, head):
    macs, _ = COSTS[head].of(architecture)
    return backbone_ms(architecture, head) + 0.2 + macs / 1e6


def write_table(path, networks, heads=(HEAD,), failed=None):
    runtime = OnnxRuntime()
    fingerprint = take_fingerprint(runtime.name, runtime.version).to_dict()
    device = DeviceSpec("local-cpu").to_dict()
    lines = [{"format": 1, "device": device, "fingerprint": fingerprint, "measure": {}}]
    measured = {"session": 1, "round": 1}
    lines.append({"kind": "reference", "key": "reference", **measured, "samples_ms": [1.0]})
    for key, block in BLOCKS.items():
        lines.append({"kind": "block", "key": key, **measured, "samples_ms": [block_ms(block)]})
    for each in networks:
        about = about_network(SPACE, each)
        line = {"kind": "network", "key": network_key("network", SPACE, each), **measured}
        lines.append({**line, "samples_ms": [backbone_ms(each)], "about": about})
        for head in heads:
            about = about_network(SPACE, each, head)
            line = {"kind": WITH_HEAD, "key": network_key(WITH_HEAD, SPACE, each, head)}
            if failed is not None:
                lines.append({**line, "session": 1, "error": failed, "about": about})
            else:
                ms = whole_ms(each, head)
                lines.append({**line, **measured, "samples_ms": [ms], "about": about})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return LatencyTable.load(path)


def some(count):
    return [SPACE.architecture(index * (SPACE.size // count)) for index in range(count)]


@pytest.mark.parametrize("head", [HEAD, LINEAR], ids=str)
def test_predicts_whole_models_that_were_not_measured(tmp_path, head):
    table = write_table(tmp_path / "t.jsonl", some(12), (HEAD, LINEAR))
    model = LatencyModel.from_table(SPACE, table, head=head)
    everything = model.predict_all()
    for index, architecture in enumerate(SPACE):
        expected = whole_ms(architecture, head)
        assert everything[index] == pytest.approx(expected, rel=1e-6)
        assert model.predict(architecture).median_ms == pytest.approx(everything[index])
        blocks_ms = sum(model.block_costs_ms(architecture))
        parts_ms = model.offset_ms + blocks_ms + model.head_ms(architecture)
        assert parts_ms == pytest.approx(everything[index])
    assert model.about == f"whole model ({head})"
    assert model.range_ms()[0] == pytest.approx(min(everything))


def test_backbones_are_predicted_as_without_a_task(tmp_path):
    with_task = write_table(tmp_path / "a.jsonl", some(12))
    without = write_table(tmp_path / "b.jsonl", some(12), heads=())
    model = LatencyModel.from_table(SPACE, with_task)
    assert model.predict_all().tolist() == (
        LatencyModel.from_table(SPACE, without).predict_all().tolist()
    )
    assert model.about == "backbone"
    assert [each.key.split("/")[0] for each in measured_networks(with_task, SPACE)] == (
        ["network"] * 12
    )


def test_what_a_digest_counts(tmp_path):
    both = write_table(tmp_path / "a.jsonl", some(8), (HEAD, LINEAR)).path
    one = write_table(tmp_path / "b.jsonl", some(8)).path
    none = write_table(tmp_path / "c.jsonl", some(8), ()).path
    assert table_digest(both) == table_digest(one) == table_digest(none)
    assert table_digest(both, HEAD) == table_digest(one, HEAD) != table_digest(none, HEAD)


class TestNotes:
    def test_are_kept_for_each_head(self, tmp_path):
        table = write_table(tmp_path / "t.jsonl", some(12), (HEAD, LINEAR))
        model = LatencyModel.from_table(SPACE, table, head=HEAD)
        keep_correction(SPACE, table, model.correction)
        keep_head(SPACE, table, HEAD, model.fit)
        keep_head(SPACE, table, LINEAR, LatencyModel.from_table(SPACE, table, head=LINEAR).fit)
        checked = {"n": 4, "mape": 0.01, "worst": 0.02, "held_out": True}
        keep_head(SPACE, table, HEAD, model.fit, checked)
        table = LatencyTable.load(table.path)
        assert current_correction(SPACE, table) == model.correction
        notes = head_notes(table)
        assert {head for _, head in notes} == {HEAD, LINEAR}
        assert notes[SPACE.space_hash, HEAD].fit == model.fit
        assert notes[SPACE.space_hash, HEAD].validation == checked
        assert corrected_model(SPACE, table, HEAD).fit == model.fit
        text = describe(table)
        assert "whole models with the head lraspp for 3 classes" in text
        assert "1.0% (worst 2.0%) on 4 held out" in text

    def test_a_damaged_one_names_its_line(self, tmp_path):
        table = write_table(tmp_path / "t.jsonl", some(12))
        fit = LatencyModel.from_table(SPACE, table, head=HEAD).fit
        keep_head(SPACE, table, HEAD, fit)
        last = json.loads(table.path.read_text().splitlines()[-1])
        for name, value in asdict(fit).items():
            for wrong in ("1", True, None):
                if value is None or (wrong is None and name == "loo_mape"):
                    continue
                with pytest.raises(ValueError, match=name):
                    HeadFit.from_dict({**asdict(fit), name: wrong})
        assert last["fit"] == asdict(fit)
        text = table.path.read_text().replace('"offset_ms":', '"offset":')
        table.path.write_text(text)
        with pytest.raises(LatencyError, match="found: line .*KeyError"):
            head_notes(LatencyTable.load(table.path))


def test_a_table_without_the_head_says_what_adds_it(tmp_path):
    table = write_table(tmp_path / "t.jsonl", some(12))
    model = LatencyModel.from_table(SPACE, table, head=HEAD)
    keep_correction(SPACE, table, model.correction)
    device = DeviceSpec("local-cpu")
    assert load_table(table.path, SPACE, device)
    with pytest.raises(StageError, match="head lraspp for 3 .*; found: .*Run `edgesearch profile`"):
        load_table(table.path, SPACE, device, head=HEAD)
    keep_head(SPACE, table, HEAD, model.fit)
    assert load_table(table.path, SPACE, device, head=HEAD)
    other = TaskHead("segmentation", "lraspp", 4)
    with pytest.raises(StageError, match="for 4 classes"):
        load_table(table.path, SPACE, device, head=other)


def test_a_head_that_cannot_run_says_why(tmp_path):
    table = write_table(tmp_path / "t.jsonl", some(12), failed="no Resize")
    with pytest.raises(LatencyError, match="0 in .*cannot run: no Resize. If the cause has passed"):
        LatencyModel.from_table(SPACE, table, head=HEAD)


class TestFit:
    rng = np.random.default_rng(0)
    backbone_ms = rng.uniform(1, 5, 14)
    features = rng.uniform([1e5, 1e4], [1e7, 1e6], (14, 2))

    @pytest.mark.parametrize(
        "law",
        [(1, 0, 0, 0), (1, 0.3, 0, 0), (1.1, 0.2, 0.05, 0), (1, 0.2, 0, 0.7), (1, 0.1, 0.1, 0.5)],
    )
    def test_finds_the_law(self, law):
        columns = np.column_stack([self.backbone_ms, np.ones(14), self.features / 1e6])
        fit = fit_head(self.backbone_ms, self.features, columns @ law, 1.1)
        found = fit.scale, fit.offset_ms, fit.per_million_macs_ms, fit.per_million_values_ms
        assert found == pytest.approx(law, abs=1e-6)
        assert fit.loo_mape == pytest.approx(0, abs=1e-6)

    def test_noise_does_not_make_more_terms(self):
        noise = 1 + 0.01 * self.rng.standard_normal(14)
        fit = fit_head(self.backbone_ms, self.features, (self.backbone_ms + 0.5) * noise, 1.1)
        assert fit.loo_mape < 0.02
        assert fit.offset_ms == pytest.approx(0.5, abs=0.1)

    def test_a_single_network_gives_an_offset(self):
        fit = fit_head(np.array([2.0]), np.array([[1e6, 1e5]]), np.array([2.5]), 1.1)
        assert fit.loo_mape is None
        assert (fit.scale, fit.offset_ms) == (1.0, pytest.approx(0.5))
