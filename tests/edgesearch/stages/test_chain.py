"""What a whole run leaves behind, and what another run makes of it."""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file

import edgesearch
from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.families import space_from_dict
from edgesearch.families.resnet.network import ResNet
from edgesearch.stages.profile import table_digest


def read(path):
    return json.loads(path.read_text())


def contents(folder):
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


class TestResult:
    def test_winners_keep_the_contract(self, finished):
        winners = read(finished[0].output_dir / "winners.json")
        assert {"space", "space_hash", "task", "winners"} <= set(winners)
        assert winners["task"] == "classification"
        (winner,) = winners["winners"]
        assert winner["name"] == "w0"
        space = space_from_dict(read(finished[0].output_dir / "engines/w0/manifest.json")["space"])
        architecture = space.from_choices(winner["architecture"])
        assert space.macs(architecture) == winner["macs"] <= 700_000
        assert space.params(architecture) == winner["params"]
        figures = winner["latency_ms"]["local-cpu"]
        assert figures["budget"] == 1000
        assert 0 < figures["measured_p50"] <= figures["measured_p95"]
        assert figures["interval"][0] <= figures["measured_p50"] <= figures["interval"][1]
        assert 0 < figures["predicted"] <= figures["predicted_p95"]
        assert figures["budget_p95"] is None
        low, high = figures["interval_p95"]
        assert low <= figures["measured_p95"] <= high

    def test_reserves_are_ranked(self, finished):
        winners = read(finished[0].output_dir / "winners.json")
        scores = [w["agreement"] for w in winners["winners"] + winners["reserves"]]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)

    def test_manifest_lists_every_file_with_its_hash(self, finished):
        folder = finished[0].output_dir / "engines/w0"
        manifest = read(folder / "manifest.json")
        on_disk = {path.name for path in folder.iterdir()} - {"manifest.json"}
        assert set(manifest["files"]) == on_disk
        for name, about in manifest["files"].items():
            data = (folder / name).read_bytes()
            assert about["sha256"] == hashlib.sha256(data).hexdigest()
            assert about["bytes"] == len(data)
        assert manifest["runtime"]["name"] == "onnxruntime"
        assert manifest["runtime"]["version"] == onnxruntime.__version__
        assert manifest["fingerprint"]["chip"]
        assert manifest["files"]["subnet.ort"]["runtime_version"] == onnxruntime.__version__
        assert manifest["calibration"]["images"] == 64
        assert len(manifest["calibration"]["sha256_of_pixels"]) == 64
        assert manifest["licence_of_data"] == "BSD-3-Clause"
        space = space_from_dict(manifest["space"])
        assert manifest["space_hash"] == space.space_hash
        table = finished[0].output_dir / "latency" / manifest["table"]["file"]
        assert manifest["table"]["sha256_of_measurements"] == table_digest(table)
        engine = manifest["files"]["subnet.fp16.engine"]
        assert engine["compute_capabilities"] == ["SM86", "SM89"]
        for name in ("subnet.onnx", "subnet.ort"):
            parity = manifest["files"][name]["parity"]
            assert parity["images"] == 64
            assert parity["min_cosine"] >= 0.99999
            assert parity["max_difference"] <= 1e-3
            assert parity["knn_images"] == 359
            assert abs(parity["knn_before"] - parity["knn_after"]) < 0.01
        assert {"python", "torch", "onnx", "onnxruntime"} <= set(manifest["versions"])

    def test_onnx_file_is_the_subnet_of_the_weights_file(self, finished):
        folder = finished[0].output_dir / "engines/w0"
        model = onnx.load(folder / "subnet.onnx")
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        space = space_from_dict(read(folder / "manifest.json")["space"])
        architecture = space.from_choices(json.loads(metadata["architecture"]))
        network = ResNet(space.blocks(architecture)).eval()
        network.load_state_dict(load_file(folder / "subnet.safetensors"))
        preprocess = Preprocess.from_dict(json.loads(metadata["preprocess"]))
        images = open_images("digits", None, 1).train.preprocessed(preprocess, range(5)).images
        pixels = preprocess.normalise(images)
        session = onnxruntime.InferenceSession(folder / "subnet.onnx")
        assert [node.name for node in session.get_inputs()] == ["images"]
        assert [node.name for node in session.get_outputs()] == ["features"]
        with torch.no_grad():
            expected = network(pixels).numpy()
        for image, features in zip(pixels.numpy(), expected, strict=True):
            (found,) = session.run(None, {"images": image[None]})
            np.testing.assert_allclose(found[0], features, atol=1e-4 * np.abs(expected).max())
        assert json.loads(metadata["classes"]) == [str(digit) for digit in range(10)]

    def test_prints_the_comparison(self, finished):
        out = finished[1].stdout
        lines = ("winner w0", "largest", "smallest", "largest, random weights", "raw pixels")
        for name in lines:
            assert any(line.startswith(name) for line in out.splitlines())
        table = {
            line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ")
        }
        for name in ("subnet.onnx", "subnet.ort", "subnet.fp16.onnx"):
            precision, error, cosine, top1, before, after = table[name][1:]
            assert precision == ("fp16" if "fp16" in name else "fp32")
            assert 0 <= float(error) < 0.05
            assert float(cosine) > 0.999
            assert [figure[-1] for figure in (top1, before, after)] == ["%"] * 3
        assert table["subnet.fp16.engine"][1:3] == ["fp16", "–"]
        version = read(finished[0].output_dir / "engines/w0/manifest.json")["versions"]
        runtime = version["tensorrt-rtx-cu13-bindings"]
        assert f"engine: tensorrt-rtx {runtime} for SM86, SM89; not run here" in out

    def test_metrics_have_a_line_for_each_epoch(self, finished):
        text = (finished[0].output_dir / "supernet/metrics.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["epoch"] for line in lines] == [1, 2]


class TestSecondRun:
    def test_does_nothing_and_prints_the_same(self, chain, finished):
        before = contents(chain.output_dir)
        done = chain.run("run", "--json")
        assert done.returncode == 0, done.stderr
        assert contents(chain.output_dir) == before
        result = json.loads(done.stdout)
        for stage in ("profile", "pretrain", "search", "export"):
            assert result[stage]["skipped"], stage
        assert {row["name"] for row in result["summary"]} >= {"winner w0", "raw pixels"}

    def test_a_changed_key_is_named_and_what_depends_on_it_is_done_again(self, chain):
        weights = (chain.output_dir / "supernet/model.safetensors").read_bytes()
        done = chain.run("run", "search.evaluations=13")
        assert done.returncode == 0, done.stderr
        assert "search.evaluations has changed from 12 to 13" in done.stderr
        assert (chain.output_dir / "search.1/trials.jsonl").exists()
        assert len((chain.output_dir / "search/trials.jsonl").read_text().splitlines()) == 14
        assert (chain.output_dir / "supernet/model.safetensors").read_bytes() == weights
        assert "pretrain: finished before" in done.stderr
        assert "measured_p50" in (chain.output_dir / "winners.json").read_text()

    def test_logits_come_with_classes(self, chain):
        done = chain.run("export", "export.output=logits", "export.tensorrt=")
        assert done.returncode == 0, done.stderr
        session = onnxruntime.InferenceSession(chain.output_dir / "engines/w0/subnet.onnx")
        (output,) = session.get_outputs()
        assert (output.name, output.shape) == ("logits", [1, 10])
        subnet = edgesearch.load_subnet(chain.output_dir / "engines/w0")
        pixels = torch.randn(1, 1, 16, 16)
        (found,) = session.run(None, {"images": pixels.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, subnet(pixels).numpy(), rtol=1e-3, atol=1e-3)


class TestReplacement:
    """Winners whose measurements, put into the table beforehand, are far above their budget."""

    BUDGET_MS = 2.0
    FAR_ABOVE_MS = 5.0

    def slow_down(self, chain, count, exports_ago=0, samples_ms=(FAR_ABOVE_MS,), **budgets):
        """Let the first `count` of winner and reserves be measured as too slow."""
        path = chain.output_dir / "search/chosen.json"
        chosen = read(path)
        candidates = [*chosen["winners"], *chosen["reserves"]]
        for candidate in candidates:
            candidate["latency_ms"]["local-cpu"].update(budgets or {"budget": self.BUDGET_MS})
        path.write_text(json.dumps(chosen))
        (table,) = (chain.output_dir / "latency").glob("*.jsonl")
        slow = [chain.space.from_choices(c["architecture"]) for c in candidates[:count]]
        kept = [
            line
            for line in table.read_text().splitlines()
            if not json.loads(line).get("key", "").startswith("winner/")
        ]
        session = 1 + max(json.loads(line).get("session", 0) for line in kept) - exports_ago
        measured = []
        for architecture in slow:
            for number in range(1, 100):
                record = {"type": "network", "key": f"winner/features/{architecture}/{session}"}
                record |= {"session": 1, "round": number, "samples_ms": samples_ms}
                record |= {"architecture": dict(architecture)}
                measured.append(json.dumps({**record, "space_hash": chosen["space_hash"]}))
        kept = chain.before_the_first_look(kept, measured)
        table.write_text("\n".join(kept) + "\n")
        return table, candidates

    def test_the_next_in_rank_takes_the_place(self, chain):
        table, candidates = self.slow_down(chain, 2)
        corrections = table.read_text().count('"correction"')
        done = chain.run("export", "export.tensorrt=")
        assert done.returncode == 0, done.stderr
        broken = "its measured median of 5.000 ms (at least 5.000) is over the budget of 2.000 ms"
        assert f"w0: {broken}; the correction is updated" in done.stderr
        written = read(chain.output_dir / "winners.json")
        (winner,) = written["winners"]
        assert winner["name"] == "w0"
        assert winner["architecture"] == candidates[2]["architecture"]
        assert winner["latency_ms"]["local-cpu"]["measured_p50"] < self.BUDGET_MS
        assert [r["architecture"] for r in winner["replaced"]] == [
            c["architecture"] for c in candidates[:2]
        ]
        assert [r["name"] for r in written["reserves"]] == ["r2", "r3"]
        for name in ("w0", "r0"):
            shown = f"in place of {name}, which was measured at 5.000 ms (95th percentile 5.000)"
            assert shown in done.stdout
        assert table.read_text().count('"correction"') > corrections

    def test_no_more_replacements_than_allowed(self, chain):
        self.slow_down(chain, 2)
        done = chain.run("export", "export.tensorrt=", "export.max_replacements=1")
        assert done.returncode == 2
        wanted = "error: required: a subnet for w0 with a median within 2.000 ms on local-cpu"
        assert wanted in done.stderr
        assert "2 candidate(s) that are too slow (w0: its measured median of 5.000" in done.stderr

    def test_what_an_earlier_export_measured_does_not_count(self, chain):
        _, candidates = self.slow_down(chain, 5, exports_ago=1)
        done = chain.run("export", "export.tensorrt=")
        assert done.returncode == 0, done.stderr
        (winner,) = read(chain.output_dir / "winners.json")["winners"]
        assert winner["architecture"] == candidates[0]["architecture"]
        assert not winner["replaced"]

    def test_none_left_is_an_error_with_the_numbers(self, chain):
        self.slow_down(chain, 5)
        done = chain.run("export", "export.tensorrt=")
        assert done.returncode == 2
        assert done.stderr.count("a reserve takes its place") == 5
        assert "5 candidate(s) that are too slow" in done.stderr
        assert done.stderr.count("its measured median of 5.000 ms (at least 5.000)") == 10
