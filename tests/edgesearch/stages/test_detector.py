"""A detector from its labels to the kit, with post-processing in its graph."""

import json
import re
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest
from PIL import Image

from edgesearch.export.manifest import MANIFEST
from edgesearch.export.verify import LEAST_SAME
from edgesearch.run.files import RECORD

FILES = {"detector.onnx", "detector.ort", "detector.int8.onnx", "detector.int8.ort"}


@pytest.fixture(scope="module")
def detector(labelled, chain_in, tmp_path_factory):
    """A small detector in eight bits that was exported, and what was printed meanwhile."""
    folder = tmp_path_factory.mktemp("detector")
    images = labelled(folder / "images", "detection")
    chain, options = chain_in(folder), (
        "data.source=folder",
        f"data.root={images}",
        "data.labels=yolo",
        "data.licence=null",
        "space.in_channels=3",
        "space.resolutions=[32]",
        "device.precision=int8",
        "pretrain.epochs=1",
        "pretrain.batch_size=8",
        "pretrain.queue_size=16",
        "search.budgets={latency_ms: 1000}",
        "finetune.task=detection",
        "finetune.epochs=30",
        "finetune.lr=0.01",
        "finetune.batch_size=8",
        "finetune.tensorboard=false",
        "finetune.threads=1",
        "export.tensorrt=",
        "export.max_task_loss=1",
        "validation.networks=2",
    )  # fmt: skip
    chain.passes("profile", *options)
    untrained = chain.json("validate", *options)
    for stage in ("pretrain", "search", "finetune"):
        chain.passes(stage, *options)
    return SimpleNamespace(
        chain=chain,
        options=options,
        untrained=untrained,
        done=chain.passes("export", *options),
    )


def test_files_with_post_processing_find_what_pytorch_finds(detector):
    chain, done = detector.chain, detector.done
    manifest = chain.read(f"engines/w0/{MANIFEST}")
    assert set(manifest["files"]) >= FILES
    assert (manifest["measured_file"], manifest["kit_file"]) == (
        "subnet.int8.onnx",
        "detector.int8.onnx",
    )
    for name in FILES:
        about = manifest["files"][name]
        assert about["post_processing"]
        parity = about["parity"]
        assert parity["images"] == 8 and parity["predictions"] > 0
        assert parity["metric"] == "map_50" and parity["metric_images"] == 8
        if "int8" not in name:
            assert parity["same_predictions"] >= LEAST_SAME * parity["predictions"]
            assert parity["metric_after"] == pytest.approx(parity["metric_before"], abs=0.01)
    time = manifest["post_processing"]["time"]
    assert manifest["post_processing"]["in"] == "graph"
    assert 0 < time["added_ms"] < time["median_ms"] <= time["p95_ms"]
    assert "post-processing: in the graphs of detector.*" in done.stdout
    assert " boxes" in done.stdout


def test_validate_times_it_before_and_after_the_training(detector):
    untrained = detector.untrained
    assert untrained["latency_of"] == "whole model (head ssdlite for 2 classes)"
    post = untrained["post_processing"]
    assert 0 < post["median_ms"] <= post["p95_ms"]
    assert (post["images"], post["trained"], post["in_graph"]) == (16, False, True)
    done = detector.chain.passes("validate", *detector.options)
    assert "suppression of overlapping boxes in the graph" in done.stdout
    assert "of a trained network on 8 test images" in done.stdout
    assert "exported" not in done.stderr  # all is measured


def test_the_kit_runs_either_form(detector, tmp_path):
    folder = detector.chain.output_dir / "engines/w0"
    image = next((detector.chain.output_dir.parent / "images/images/val").glob("*.png"))
    with zipfile.ZipFile(folder / "kit.zip") as archive:
        archive.extractall(tmp_path)

    def boxes():
        command = [sys.executable, "run.py", image, "--runs", "3", "--draw", "out.png", "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        said = json.loads(done.stdout)
        whole = said["latency"]["from_a_prepared_image_to_boxes"]
        assert 0 < whole["median_ms"] <= whole["p95_ms"]
        found = sorted(
            (each["score"], each["class"], each["box"]) for each in said["results"][0]["boxes"]
        )
        with Image.open(tmp_path / "out.png") as drawn, Image.open(image) as original:
            assert drawn.size == original.size
            assert (drawn.tobytes() != original.tobytes()) == bool(found)
        return found

    in_graph = boxes()
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    # As for a runtime whose graphs do not hold it.
    manifest["kit_file"] = name = "subnet.int8.onnx"
    (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    assert boxes() == in_graph
    assert in_graph


def test_the_report_shows_the_files(detector):
    detector.chain.passes("report", *detector.options)
    page = (detector.chain.output_dir / "report.html").read_text("utf-8")
    assert "detector.int8.onnx" in page
    assert re.search(r"\d+ of \d+ boxes", page)
    assert "With it, test images take a median of" in page


def test_an_export_without_it_is_no_export_with_it(detector, tmp_path):
    chain, options = detector.chain, detector.options
    assert chain.json("export", *options)["skipped"]
    former = chain.copied(tmp_path)
    record = former.read(f"engines/{RECORD}")
    del record["inputs"]["place of the post-processing"]
    record["seconds"] = 1e4  # it is set aside all the same
    former.write(f"engines/{RECORD}", record)
    done = former.passes("export", *options)
    assert "other than before: place of the post-processing" in done.stderr
    assert (former.output_dir / "engines.1").exists()
    assert set(former.read(f"engines/w0/{MANIFEST}")["files"]) >= FILES
