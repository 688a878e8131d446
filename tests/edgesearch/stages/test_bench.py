"""Command bench on real files: figures, and what is refused."""

import json
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from devices import OrtBuilder, TensorRTBuilder, fix_batch, read_inputs
from devices.errors import EngineError
from edgesearch.cli.main import app
from edgesearch.export.manifest import MANIFEST, check_listed, write_manifest

TRIES = 30


def bench(*arguments):
    """The command; again while a neighbour disturbs all rounds, which it refuses rightly."""
    for _ in range(TRIES):
        done = CliRunner().invoke(app, ["bench", *map(str, arguments), "--rounds", "2"])
        if "an undisturbed round of both engines" not in done.output:
            break
        time.sleep(1)
    return done


def figures(*arguments):
    done = bench(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*arguments, says):
    done = bench(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stderr.count("error: required:") == 1
    for message in says:
        assert message in done.stderr


def write_model(path, batch=1, size=8):
    weights = np.ones((4, 3, 3, 3), np.float32)
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


@pytest.fixture
def compiled(model):
    OrtBuilder().build(model, model.with_suffix(".ort"))
    return model.with_suffix(".ort")


def test_two_are_compared(model, compiled):
    shown = bench(model, "--against", model).stdout
    assert "p50 ms" in shown
    assert f"{model} takes " in shown
    assert "with 95 % confidence" in shown
    assert "latencies" in shown.lower().splitlines()[-1]
    result = figures(model, "threads=2", "--against", compiled)
    assert result["device"] == "local-cpu"
    assert result["fingerprint"]["settings"]["threads"] == 2
    assert [engine["path"] for engine in result["engines"]] == [str(model), str(compiled)]
    for engine in result["engines"]:
        timing = engine["timing"]
        assert 0 < timing["p50_ms"] <= timing["p90_ms"] <= timing["p95_ms"] <= timing["p99_ms"]
        assert timing["interval_ms"][0] <= timing["p50_ms"] <= timing["interval_ms"][1]
        assert engine["images_per_second"] == pytest.approx(1e3 / timing["p50_ms"])
        assert engine["usage"]["memory_bytes"] >= 0
    ratio = result["ratio"]
    assert ratio["rounds"] >= 1
    assert ratio["interval"][0] <= ratio["ratio"] <= ratio["interval"][1]


def test_an_open_batch_is_chosen_and_a_fixed_one_is_not(tmp_path, model):
    path = write_model(tmp_path / "open.onnx", "batch")
    OrtBuilder().build(path, tmp_path / "open.ort")
    for each in (path, tmp_path / "open.ort"):
        (engine,) = figures(each, "--batch", 5)["engines"]
        assert engine["batch"] == 5
        assert engine["images_per_second"] == pytest.approx(5e3 / engine["timing"]["p50_ms"])
    refused(model, "--batch", 2, says=[f"a dynamic batch in {model}", "[1, 3, 8, 8]"])
    two = write_model(tmp_path / "two.onnx", 2)
    assert figures(two)["engines"][0]["batch"] == 2
    other = write_model(tmp_path / "other.onnx", 1, "height")
    refused(other, says=["must have fixed shapes, but for the batch", "height"])


def test_open_batches_are_fixed_for_tensorrt(tmp_path):
    path = write_model(tmp_path / "open.onnx", "batch")
    fix_batch(path, tmp_path / "fixed.onnx", 3)
    assert read_inputs(path) == {"images": ("batch", 3, 8, 8)}
    assert read_inputs(tmp_path / "fixed.onnx") == {"images": (3, 3, 8, 8)}
    path = write_model(tmp_path / "open.onnx", "batch", "height")
    with pytest.raises(EngineError, match="must be open in their first dimension only"):
        fix_batch(path, tmp_path / "fixed.onnx", 3)


def test_what_is_no_engine_is_refused(tmp_path, model):
    refused(tmp_path / "subnet.pt", says=["a file that ends in .engine, .onnx, .ort"])
    refused(tmp_path / "missing.onnx", says=["an engine at", "no such file"])
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(model.read_bytes()[:100])
    refused(damaged, says=[f"{damaged} must be a whole model that onnxruntime"])
    refused(model, "--against", damaged, says=[f"{damaged} must be a whole model"])


def test_engines_of_another_family_are_refused(tmp_path, model, compiled):
    pytest.importorskip("tensorrt_rtx_bindings")
    engine = tmp_path / "small.engine"
    TensorRTBuilder("tensorrt-rtx", ["SM89"]).build(model, engine)
    wanted = f"a device with the runtime tensorrt-rtx, which can load {engine}"
    refused(engine, says=[wanted, "local-cpu with onnxruntime"])
    refused(engine, "--device", "local-gpu", says=[wanted, "local-gpu with tensorrt"])
    (tmp_path / "damaged.engine").write_bytes(engine.read_bytes()[:-10])
    on_pc = ("--device", "rtx-pc", "transport=local")
    refused(tmp_path / "damaged.engine", *on_pc, says=["it is damaged"])
    (tmp_path / "other.engine").write_bytes(b"a plan of TensorRT")
    refused(tmp_path / "other.engine", *on_pc, says=["with the runtime tensorrt,"])
    runtime = "a device with the runtime onnxruntime, which can load"
    refused(compiled, "--device", "local-gpu", says=[runtime])


def test_devices_are_refused_with_all_faults(model):
    faults = ["2 fault(s)", "did you mean threads?", "  - batch: "]
    refused(model, "threds=2", "batch=two", says=faults)
    known = ["  - a device of the", "Did you mean local-cpu"]
    refused(model, "--device", "local-cpy", says=known)
    refused(model, "device.threads", says=["must have the form"])


def test_a_manifest_has_to_agree(model, compiled):
    about = {"runtime": "onnxruntime", "runtime_version": "0.9"}
    write_manifest(model.parent, {model.name: about, compiled.name: about}, {})
    other = f"onnxruntime 0.9, the version that compiled {compiled}"
    refused(compiled, says=[other, "found: onnxruntime 1."])
    check_listed(model)
    with compiled.open("ab") as file:
        file.write(b"more")
    refused(compiled, says=[f"{compiled} with the SHA-256", "the file has changed"])
    for text in ("[]", "{", '{"files": 7}', '{"name": "app", "files": []}', "{}"):
        (model.parent / MANIFEST).write_text(text)  # of something else
        check_listed(model)
    for text, reason in (
        ('{"files": {"small.onnx": {}}}', "KeyError: 'sha256'"),
        ('{"files": {"small.onnx": {"sha256": "12', "JSONDecodeError"),
        ('{"files": ["small.onnx"]}', "TypeError"),
    ):
        (model.parent / MANIFEST).write_text(text)
        refused(model, says=[f"{model} and a complete {MANIFEST} beside it", f"found: {reason}"])
