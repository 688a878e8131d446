"""Command bench on real files: figures, and what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from devices import OrtBuilder, TensorRTBuilder, fix_batch, read_inputs
from devices.errors import EngineError
from edgesearch.cli.main import app
from edgesearch.export.manifest import MANIFEST, write_manifest


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def refused(done, *messages):
    assert done.exit_code == 2, done.output
    assert done.stderr.count("error: required:") == 1
    for message in messages:
        assert message in done.stderr


def write_model(path, batch=1, size=8, width=4):
    weights = np.ones((width, 3, 3, 3), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "weights"], ["features"])],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, size, 8])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "small.onnx")


def test_two_are_compared(model, tmp_path):
    OrtBuilder().build(model, tmp_path / "small.ort")
    done = bench(model, "--against", tmp_path / "small.ort", "--rounds", 3, "--json", "threads=2")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["device"] == "local-cpu"
    assert result["fingerprint"]["settings"]["threads"] == 2
    ours, theirs = result["engines"]
    assert (ours["path"], theirs["path"]) == (str(model), str(tmp_path / "small.ort"))
    for engine in (ours, theirs):
        timing = engine["timing"]
        assert 0 < timing["p50_ms"] <= timing["p90_ms"] <= timing["p95_ms"] <= timing["p99_ms"]
        assert timing["interval_ms"][0] <= timing["p50_ms"] <= timing["interval_ms"][1]
        assert engine["images_per_second"] == pytest.approx(1e3 / timing["p50_ms"])
        assert engine["usage"]["memory_bytes"] >= 0
    ratio = result["ratio"]
    assert ratio["rounds"] >= 1
    assert ratio["interval"][0] <= ratio["ratio"] <= ratio["interval"][1]


def test_prints_for_people(model):
    done = bench(model, "--rounds", 2, "--against", model)
    assert done.exit_code == 0, done.output
    assert "p50 ms" in done.stdout
    assert f"{model} takes " in done.stdout
    assert "with 95 % confidence" in done.stdout
    assert "machine" in done.stdout.lower().splitlines()[-1]


@pytest.mark.parametrize("ending", ["onnx", "ort"])
def test_an_open_batch_is_chosen(tmp_path, ending):
    path = write_model(tmp_path / "open.onnx", "batch")
    if ending == "ort":
        OrtBuilder().build(path, tmp_path / "open.ort")
    done = bench(tmp_path / f"open.{ending}", "--batch", 5, "--rounds", 2, "--json")
    assert done.exit_code == 0, done.output
    (engine,) = json.loads(done.stdout)["engines"]
    assert engine["batch"] == 5
    assert engine["images_per_second"] == pytest.approx(5e3 / engine["timing"]["p50_ms"])


def test_a_fixed_batch_is_none_to_choose(model, tmp_path):
    refused(bench(model, "--batch", 2), f"an open batch in {model}", "[1, 3, 8, 8]")
    two = write_model(tmp_path / "two.onnx", 2)
    done = bench(two, "--rounds", 2, "--json")
    assert json.loads(done.stdout)["engines"][0]["batch"] == 2


def test_open_batches_are_fixed_for_tensorrt(tmp_path):
    path = write_model(tmp_path / "open.onnx", "batch")
    fix_batch(path, tmp_path / "fixed.onnx", 3)
    assert read_inputs(path) == {"images": ("batch", 3, 8, 8)}
    assert read_inputs(tmp_path / "fixed.onnx") == {"images": (3, 3, 8, 8)}
    path = write_model(tmp_path / "open.onnx", "batch", "height")
    with pytest.raises(EngineError, match="must be open in their first dimension only"):
        fix_batch(path, tmp_path / "fixed.onnx", 3)


def test_other_open_dimensions_are_refused(tmp_path):
    path = write_model(tmp_path / "open.onnx", 1, "height")
    refused(bench(path), "must have fixed shapes, but for the batch", "height")


def test_what_is_no_engine_is_refused(tmp_path, model):
    refused(bench(tmp_path / "subnet.pt"), "a file that ends in .engine, .onnx, .ort")
    refused(bench(tmp_path / "missing.onnx"), "an engine at", "no such file")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(model.read_bytes()[:100])
    refused(bench(damaged), f"{damaged} must be a whole model that onnxruntime")
    refused(bench(model, "--against", damaged), f"{damaged} must be a whole model")


def test_engines_of_another_family_are_refused(tmp_path, model):
    pytest.importorskip("tensorrt_rtx_bindings")
    engine = tmp_path / "small.engine"
    TensorRTBuilder("tensorrt-rtx", ["SM89"]).build(model, engine)
    wanted = f"a device with the runtime tensorrt-rtx, for which {engine} is"
    refused(bench(engine), wanted, "local-cpu with onnxruntime")
    refused(bench(engine, "--device", "local-gpu"), wanted, "local-gpu with tensorrt")
    (tmp_path / "damaged.engine").write_bytes(engine.read_bytes()[:-10])
    damaged = bench(tmp_path / "damaged.engine", "--device", "rtx-pc", "transport=local")
    refused(damaged, "it is damaged")
    (tmp_path / "other.engine").write_bytes(b"a plan of TensorRT")
    refused(bench(tmp_path / "other.engine", "--device", "rtx-pc"), "with the runtime tensorrt,")
    OrtBuilder().build(model, tmp_path / "small.ort")
    ort = bench(tmp_path / "small.ort", "--device", "local-gpu")
    refused(ort, "a device with the runtime onnxruntime, for which")


def test_devices_are_refused_with_all_faults(model):
    refused(
        bench(model, "threds=2", "batch=two"), "2 fault(s)", "did you mean threads?", "  - batch: "
    )
    refused(
        bench(model, "--device", "local-cpy"), "  - a device of the", "Did you mean 'local-cpu'"
    )
    refused(bench(model, "device.threads"), "must have the form")


def test_a_manifest_has_to_agree(model, tmp_path):
    ort = tmp_path / "small.ort"
    OrtBuilder().build(model, ort)
    about = {"runtime": "onnxruntime", "runtime_version": "0.9"}
    write_manifest(tmp_path, {model.name: about, ort.name: about}, {})
    refused(bench(ort), f"onnxruntime 0.9, with which {ort} was compiled", "found: onnxruntime 1.")
    assert bench(model, "--rounds", 2).exit_code == 0  # ONNX is for all versions
    with ort.open("ab") as file:
        file.write(b"more")
    refused(bench(ort), f"{ort} with the SHA-256", "the file has changed")


@pytest.mark.parametrize("text", ["[]", "{", '{"files": 7}', '{"name": "app", "files": []}', "{}"])
def test_a_manifest_of_something_else_is_left_alone(model, text):
    (model.parent / MANIFEST).write_text(text)
    done = bench(model, "--rounds", 2)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"files": {"small.onnx": {}}}', "KeyError: 'sha256'"),
        ('{"files": {"small.onnx": {"sha256": "12', "JSONDecodeError"),
        ('{"files": ["small.onnx"]}', "TypeError"),
    ],
)
def test_a_damaged_manifest_that_names_the_file_is_refused(model, text, reason):
    (model.parent / MANIFEST).write_text(text)
    refused(bench(model), f"{model} and a whole {MANIFEST} beside it", f"found: {reason}")
