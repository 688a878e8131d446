"""What a whole run leaves behind, and what another run makes of it."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import edgesearch
from edgesearch.data.preprocess import Preprocess
from edgesearch.latency.table import table_digest

ENGINES = "engines/w0"


def contents(folder):
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_winners_keep_the_contract(finished):
    chain = finished[0]
    winners = chain.read("winners.json")
    assert {"space", "space_hash", "task", "winners"} <= set(winners)
    assert winners["task"] == "classification"
    (winner,) = winners["winners"]
    assert winner["name"] == "w0"
    architecture = chain.architecture(winner["architecture"])
    assert chain.space.macs(architecture) == winner["macs"] <= 700_000
    assert chain.space.params(architecture) == winner["params"]
    figures = winner["latency_ms"]["local-cpu"]
    assert (figures["budget"], figures["budget_p95"]) == (1000, None)
    assert 0 < figures["measured_p50"] <= figures["measured_p95"]
    assert 0 < figures["predicted"] <= figures["predicted_p95"]
    for interval, figure in (("interval", "measured_p50"), ("interval_p95", "measured_p95")):
        assert figures[interval][0] <= figures[figure] <= figures[interval][1]
    scores = [w["agreement"] for w in winners["winners"] + winners["reserves"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    lines = map(json.loads, chain.lines("supernet/metrics.jsonl"))
    assert [line["epoch"] for line in lines] == [1, 2]


def test_manifest_lists_every_file_with_its_hash(finished):
    chain = finished[0]
    folder = chain.output_dir / ENGINES
    manifest = chain.read(f"{ENGINES}/manifest.json")
    files = manifest["files"]
    assert set(files) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, about in files.items():
        data = (folder / name).read_bytes()
        assert about["sha256"] == hashlib.sha256(data).hexdigest()
        assert about["bytes"] == len(data)
    version = onnxruntime.__version__
    assert manifest["runtime"]["name"] == "onnxruntime"
    assert manifest["runtime"]["version"] == files["subnet.ort"]["runtime_version"] == version
    assert manifest["fingerprint"]["chip"]
    assert manifest["calibration"]["images"] == 64
    assert len(manifest["calibration"]["sha256_of_pixels"]) == 64
    assert manifest["licence_of_data"] == "BSD-3-Clause"
    assert manifest["space_hash"] == chain.space.space_hash
    assert manifest["table"]["file"] == chain.table.name
    assert manifest["table"]["sha256_of_measurements"] == table_digest(chain.table)
    assert files["subnet.fp16.engine"]["compute_capabilities"] == ["SM86", "SM89"]
    for name in ("subnet.onnx", "subnet.ort"):
        parity = files[name]["parity"]
        assert (parity["images"], parity["knn_images"]) == (64, 359)
        assert parity["min_cosine"] >= 0.99999
        assert parity["max_difference"] <= 1e-3
        assert abs(parity["knn_before"] - parity["knn_after"]) < 0.01
    assert {"python", "torch", "onnx", "onnxruntime"} <= set(manifest["versions"])


def test_onnx_file_is_the_subnet_of_the_weights_file(finished):
    folder = finished[0].output_dir / ENGINES
    metadata = {
        entry.key: json.loads(entry.value)
        for entry in onnx.load(folder / "subnet.onnx").metadata_props
        if entry.key in ("architecture", "preprocess", "classes")
    }
    subnet = edgesearch.load_subnet(folder)
    assert subnet.about["architecture"] == metadata["architecture"]
    preprocess = Preprocess(**metadata["preprocess"])
    random = np.random.default_rng(0).integers(0, 256, (5, 1, 16, 16)).astype(np.uint8)
    pixels = preprocess.normalise(torch.from_numpy(random))
    session = onnxruntime.InferenceSession(folder / "subnet.onnx")
    assert [node.name for node in session.get_inputs()] == ["images"]
    assert [node.name for node in session.get_outputs()] == ["features"]
    with torch.no_grad():
        expected = subnet(pixels).numpy()
    for image, features in zip(pixels.numpy(), expected, strict=True):
        (found,) = session.run(None, {"images": image[None]})
        np.testing.assert_allclose(found[0], features, atol=1e-4 * np.abs(expected).max())
    assert metadata["classes"] == [str(digit) for digit in range(10)]


def test_prints_the_comparison(finished, chain):
    out = finished[1].stdout
    for name in ("winner w0", "largest", "smallest", "largest, random weights", "raw pixels"):
        assert any(line.startswith(name) for line in out.splitlines())
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert rows["largest, random weights"][3] == "–", "an agreement of random weights says nothing"
    assert rows["largest"][1] != "–"
    assert "kNN: accuracy on 359 held-out images, 5 neighbours among 400 training images" in out
    assert "engines/w0: subnet.onnx, subnet.ort, subnet.fp16.onnx" in out
    assert "max error" not in out
    for out in (chain.passes("export").stdout, chain.passes("run", "-v").stdout):
        shows_the_files(out, finished[0])


def shows_the_files(out, chain):
    table = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  ")}
    for name in ("subnet.onnx", "subnet.ort", "subnet.fp16.onnx"):
        precision, error, cosine, *same, before, after = table[name][1:]
        assert precision == ("fp16" if "fp16" in name else "fp32")
        assert 0 <= float(error) < 0.05
        assert float(cosine) > 0.999
        assert same[1:] == ["of", "64"]
        assert before[-1] == after[-1] == "%"
    assert table["subnet.fp16.engine"][1:3] == ["fp16", "–"]
    versions = chain.read(f"{ENGINES}/manifest.json")["versions"]
    runtime = versions["tensorrt-rtx-cu13-bindings"]
    assert f"engine: tensorrt-rtx {runtime} for SM86, SM89; not run here" in out
    assert "cannot run" not in out
    same = "images with the same most similar other image as in PyTorch; this is no accuracy"
    assert f"  as PyTorch: {same}" in out
    names = "(subnet.onnx, subnet.ort, subnet.fp16.onnx)"
    assert f"  kNN: 5 neighbours, 359 held-out and 512 training images {names}" in out


def test_a_second_run_does_nothing_and_says_the_same(chain):
    before = contents(chain.output_dir)
    result = chain.json("run")
    assert contents(chain.output_dir) == before
    assert all(result[stage]["skipped"] for stage in ("profile", "pretrain", "search", "export"))
    assert {row["name"] for row in result["summary"]} >= {"winner w0", "raw pixels"}


def test_a_changed_key_is_named_and_what_depends_on_it_is_done_again(chain):
    weights = (chain.output_dir / "supernet/model.safetensors").read_bytes()
    done = chain.passes("run", "search.evaluations=13", "export.tensorrt=")
    assert "search.evaluations has changed from 12 to 13" in done.stderr
    assert (chain.output_dir / "search.1/trials.jsonl").exists()
    assert len(chain.lines("search/trials.jsonl")) == 14
    assert (chain.output_dir / "supernet/model.safetensors").read_bytes() == weights
    assert "pretrain: already finished" in done.stderr
    assert "measured_p50" in (chain.output_dir / "winners.json").read_text()


@pytest.mark.parametrize(("method", "changes"), [("densecl", {}), ("simclr", {"queue_size": None})])
def test_other_methods_whose_files_hold_other_parts(chain, method, changes):
    told = []
    run = chain.api(pretrain={"method": method, **changes}, export={"tensorrt": None})
    run.report = lambda event: told.append(event.message)
    result = run.run()
    changed = f"pretrain.method has changed from 'moco_v2' to '{method}'"
    assert any(message.startswith(changed) and "starting over" in message for message in told)
    (largest,) = (row for row in result.summary if row.name == "largest")
    itself = method == "simclr"  # which has no key encoder
    assert (largest.agreement is None) == itself
    assert -1 <= result.search.winners.winners[0].agreement <= 1
    (manifest,) = result.export.manifests
    assert manifest["files"]["subnet.onnx"]["parity"]["min_cosine"] >= 0.99999
    names = load_file(chain.output_dir / "supernet/model.safetensors")
    assert ("key.backbone.conv1.weight" in names) == (method == "densecl")
    assert ("key.dense_projector.fc1.weight" in names) == (method == "densecl")
    assert run.pretrain().skipped


def test_a_whole_run_in_a_plain_locale(chain, tmp_path):
    """Also: a folder with an umlaut and a `#`, named on the command line."""
    folder = tmp_path / "grün #1"
    chain.output_dir.rename(folder)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "edgesearch", "run", chain.config, f"output_dir={folder}"]
    (folder / "winners.json").unlink()  # so that the search writes all of its files again
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert str(folder).encode() in done.stdout
    assert (folder / "winners.json").is_file()
    assert not done.stdout.isascii() and b"random weights" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
