"""What the user has to mend, on a finished run: one message, exit code 2, nothing lost."""

import json
import re
import shutil
import sys

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from devices import load_device
from devices.runtimes.tensorrt_bindings import FAMILIES
from edgesearch.cli.main import app
from edgesearch.export.manifest import read_manifest
from edgesearch.families import space_from_dict
from edgesearch.latency.latency_model import LatencyModel
from edgesearch.stages.profile import current_correction
from profilers import LatencyTable


@pytest.fixture
def call(chain):
    """Call a command in this process, on the copy of the finished run."""

    def call(stage, *overrides):
        where = [str(chain.config), f"output_dir={chain.output_dir}"]
        return CliRunner().invoke(app, [stage, *where, *overrides])

    return call


def refused(result, *messages):
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: required:") == 1
    assert "Traceback" not in result.stderr
    for message in messages:
        assert message in result.stderr


def least_told(result, budget):
    """What the message names as the least that is within reach."""
    words = rf"{budget} 0.0001, but the least that this space reaches is ([\d.]+)"
    return float(re.search(words, result.stderr)[1])


def least_predicted(chain, p95=False):
    space = space_from_dict(read_manifest(chain.output_dir / "engines/w0")["space"])
    (path,) = (chain.output_dir / "latency").glob("*.jsonl")
    table = LatencyTable.load(path)
    model = LatencyModel.from_table(space, table, current_correction(space, table))
    return model.predict_all().min() * (model.correction.p95_ratio if p95 else 1)


def test_infeasible_budget_says_what_can_be_reached(call, chain):
    kept = [chain.output_dir / "winners.json", chain.output_dir / "search/trials.jsonl"]
    before = [path.read_bytes() for path in kept]
    result = call("search", "search.budgets.latency_ms=0.0001")
    refused(result, "latency_ms ≤ 0.0001")
    assert least_told(result, "latency_ms") == pytest.approx(least_predicted(chain), rel=1e-3)
    assert [path.read_bytes() for path in kept] == before
    assert "finished before" in call("search").stderr


def test_infeasible_percentile_says_what_can_be_reached(call, chain):
    result = call("search", "search.budgets.latency_p95_ms=0.0001")
    wanted = "latency_ms ≤ 1,000, latency_p95_ms ≤ 0.0001, macs ≤ 700,000"
    refused(result, wanted)
    least_ms = least_predicted(chain, p95=True)
    assert least_told(result, "latency_p95_ms") == pytest.approx(least_ms, rel=1e-3)


def test_as_json_the_error_is_the_only_output(call):
    result = call("search", "search.budgets.params=10", "--json")
    refused(result)
    error = json.loads(result.stdout)["error"]
    assert set(error) == {"required", "found", "remedy"}
    assert "the least that this space reaches is" in error["found"]


def test_table_of_other_threads_names_the_field(call, chain):
    (table,) = (chain.output_dir / "latency").glob("*.jsonl")
    message = "latency table of local-cpu at"
    refused(call("search", "device.threads=2"), message, "edgesearch profile")
    other = f"local-cpu-{load_device('local-cpu', threads=2).identity}.jsonl"
    shutil.copy(table, table.with_name(other))
    for stage in ("search", "profile"):
        refused(call(stage, "device.threads=2"), "must be of threads 2\n  found: threads 1")


def test_winners_of_another_device_are_not_exported(call, chain):
    (table,) = (chain.output_dir / "latency").glob("*.jsonl")
    other = load_device("local-cpu", threads=2)
    first, rest = table.read_text("utf-8").split("\n", 1)
    header = {**json.loads(first), "device": other.to_dict()}
    path = table.with_name(f"local-cpu-{other.identity}.jsonl")
    path.write_text(f"{json.dumps(header)}\n{rest}", "utf-8")
    result = call("export", "device.threads=2")
    refused(result, "winners for a device with threads 2", "found: winners for threads 1")


def test_winners_of_another_supernet_are_not_exported(call, chain):
    weights = chain.output_dir / "supernet/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused(call("export"), "searched with the weights in", "edgesearch search")


def test_table_of_another_space(call):
    refused(call("search", "space.stem_widths=[4, 8, 12]"), "of its blocks are not in it")


def test_table_that_is_damaged(call, chain):
    (table,) = (chain.output_dir / "latency").glob("*.jsonl")
    lines = table.read_text("utf-8").splitlines()
    lines[5] = lines[5][:-10]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    refused(call("search"), "line 6")


@pytest.mark.parametrize("stage", ["search", "export"])
def test_missing_weights_name_the_command(call, chain, stage):
    (chain.output_dir / "supernet/model.safetensors").unlink()
    refused(call(stage), "model.safetensors", "edgesearch pretrain")


def test_corrupt_weights(call, chain):
    path = chain.output_dir / "supernet/model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    refused(call("search"), f"supernet weights in safetensors form at {path}")


def test_foreign_weights(call, chain):
    path = chain.output_dir / "supernet/model.safetensors"
    save_file(load_file(path), path, {"edgesearch": json.dumps({"format": "other"})})
    refused(call("search"), "supernet weights of the format", "the format 'other'")


@pytest.fixture
def stopped(chain):
    """The folder of a training that is not finished, its last state half-written."""
    folder = chain.output_dir / "supernet"
    record = json.loads((folder / "stage.json").read_text("utf-8"))
    (folder / "stage.json").write_text(json.dumps({**record, "finished": False}), "utf-8")
    state = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(state[: len(state) // 2])
    return folder


def test_half_written_state_of_a_stopped_training(call, stopped):
    weights = (stopped / "model.safetensors").read_bytes()
    result = call("pretrain", "--json")
    assert result.exit_code == 0, result.output
    json.loads(result.stdout)
    told = r"pretrain: .*state.pt is damaged: going on from the state before it, that after epoch 1"
    assert len(re.findall(told, result.stderr)) == 1
    assert "pretrain 2/2" in result.stderr
    assert "pretrain 1/2" not in result.stderr
    assert (stopped / "model.safetensors").read_bytes() == weights


def test_no_whole_state_of_a_stopped_training(call, stopped):
    (stopped / "state.previous.pt").write_bytes(b"")
    refused(call("pretrain"), f"a training state of edgesearch at {stopped / 'state.pt'}")
    assert (stopped / "state.pt").exists()


def test_damaged_choice(call, chain):
    (chain.output_dir / "search/chosen.json").write_text("{", "utf-8")
    refused(call("export"), "chosen.json, which `edgesearch search` writes")


@pytest.fixture
def flat(tmp_path):
    """Overrides that name a folder of 80 images without classes."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for number in range(80):
        Image.new("L", (16, 16), 3 * number).save(folder / f"{number}.png")
    return "data.source=folder", f"data.root={folder}"


def keeps_its_engines(call, chain):
    assert (chain.output_dir / "engines/w0/kit.zip").is_file()
    assert "finished before" in call("export").stderr


def test_logits_without_labels_set_no_engines_aside(call, chain, flat):
    refused(call("export", "export.output=logits", *flat), "class folders, for an accuracy")
    keeps_its_engines(call, chain)


def test_an_unknown_compute_capability_sets_no_engines_aside(call, chain):
    done = call("export", "export.tensorrt.compute_capabilities=[SM90]")
    refused(done, "compute capabilities out of SM75, SM80, SM86, SM89", "found: SM90")
    keeps_its_engines(call, chain)


def test_images_that_cannot_be_read_set_no_engines_aside(call, chain, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/text.jpg").write_text("no image")
    done = call("export", "data.source=folder", f"data.root={tmp_path / 'images'}")
    refused(done, "at least one image in", "none of 1", "cannot identify image file")
    keeps_its_engines(call, chain)


def test_fewer_images_than_a_batch_set_no_engines_aside(call, chain, flat):
    for stage in ("profile", "search"):
        result = call(stage, "device.batch=96")
        assert result.exit_code == 0, result.output
    few = call("export", "device.batch=96", *flat)
    refused(few, "at least 96 images, which make a batch, to check engines on", "found: 80 images")
    few = call("export", "device.batch=96", "export.tensorrt.precision=int8")  # 64 for calibration
    refused(few, "at least 96 images, which make a batch, to quantize", "found: 64")
    assert (chain.output_dir / "engines/w0/kit.zip").is_file()
    assert not (chain.output_dir / "engines.1").exists()


@pytest.fixture
def labelled(tmp_path):
    """Overrides that name a folder of images in two classes, and its part by names."""
    root = tmp_path / "labelled"
    for part in ("train/a", "train/b", "test/a", "test/b"):
        (root / part).mkdir(parents=True)
        for number in range(20):
            Image.new("L", (16, 16), 12 * number).save(root / part / f"{number}.png")
    return root, ("data.source=folder", f"data.root={root}")


def spoilt(folder):
    for path in folder.rglob("*.png"):
        path.write_text("no image")


@pytest.mark.parametrize("output", ["features", "logits"])
def test_labels_of_images_that_cannot_be_read_set_no_engines_aside(call, chain, labelled, output):
    root, data = labelled
    spoilt(root / "test")
    done = call("export", f"export.output={output}", *data)
    refused(done, f"at least one image in {root / 'test'} that can be read", "none of 40")
    keeps_its_engines(call, chain)


def test_classes_that_cannot_be_read_set_no_engines_aside(call, chain, labelled):
    root, data = labelled
    spoilt(root / "train/b")
    done = call("export", "export.output=logits", *data)
    refused(done, "images of two classes or more", "images of 1 class(es) that can be read")
    keeps_its_engines(call, chain)


@pytest.fixture
def without(monkeypatch):
    """Make modules impossible to import."""

    def without(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return without


def test_a_finished_export_reads_no_weights(call, without):
    without("safetensors")
    result = call("export")
    assert result.exit_code == 0, result.output
    assert "finished before" in result.stderr


@pytest.mark.parametrize("stage", ["export", "run"])
def test_what_is_finished_needs_no_tensorrt(call, chain, without, stage):
    without(*FAMILIES["tensorrt-rtx"].modules)
    result = call(stage)
    assert result.exit_code == 0, result.output
    assert "export: finished before" in result.stderr
    result = call(stage, "export.tensorrt.compute_capabilities=[SM86]")
    refused(result, "TensorRT for RTX", "pip install")
    assert "finished before" not in result.stderr
    keeps_its_engines(call, chain)


@pytest.mark.parametrize(
    "overrides",
    [
        ["export.output=logits"],
        ["device.name=rtx-pc", "export.batch=dynamic"],
        ["data.root=missing"],
        ["export.tensorrt.compute_capabilities=[SM90]"],
    ],
)
def test_what_stops_a_late_stage_is_said_before_the_first(call, chain, flat, overrides):
    shutil.rmtree(chain.output_dir)
    result = call("run", *flat, *overrides)
    refused(result)
    assert "profile" not in result.stderr
    assert not chain.output_dir.exists()


def test_few_images_and_a_large_queue_are_said(call, chain, flat):
    result = call("pretrain", *flat, "pretrain.epochs=1")
    assert result.exit_code == 0, result.output
    assert "a queue of 128 is more than a quarter of the 80 images" in result.stderr
    result = call("search", *flat)
    assert result.exit_code == 0, result.output
    few = "80 images are fewer than search.calibration_images + search.images (128)"
    assert few in result.stderr


def test_tiny_images_are_said(call, tmp_path, flat):
    assert "are enlarged" not in call("pretrain", *flat, "pretrain.epochs=1").stderr
    for path in (tmp_path / "flat").iterdir():
        Image.open(path).resize((6, 7)).save(path)
    result = call("pretrain", *flat, "pretrain.epochs=1")
    assert "images with a short side of 6 pixels are enlarged to 16" in result.stderr


def test_a_collapse_is_said_once(call, chain):
    """A decay so strong that nothing is left but the bias of the projector."""
    decay = ["weight_decay=5", "lr=0.06", "momentum=0", "projector_bn=false", "epochs=4"]
    result = call("pretrain", *(f"pretrain.{override}" for override in decay))
    assert result.exit_code == 0, result.output
    assert result.stderr.count("the embeddings of all images have become the same (spread 0.0") == 1
    lines = (chain.output_dir / "supernet/metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["collapsed"] for line in lines] == [False, True, True, True]
    healthy = call("pretrain", "pretrain.epochs=2")
    assert "have become the same" not in healthy.stderr


def test_nothing_that_can_be_read(call, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"nothing")
    result = call("pretrain", "data.source=folder", f"data.root={tmp_path / 'images'}")
    refused(result, "at least one image in", "none of 1")


def test_winners_that_a_search_wrote_again_get_their_latencies_back(call, chain):
    path = chain.output_dir / "winners.json"
    before = path.read_bytes()
    shutil.copy(chain.output_dir / "search/chosen.json", path)
    assert b"measured_p50" not in path.read_bytes()
    result = call("export")
    assert result.exit_code == 0, result.output
    assert "finished before" in result.stderr
    assert path.read_bytes() == before


def test_winners_file_that_is_gone_is_made_again_without_scoring(call, chain):
    path = chain.output_dir / "winners.json"
    before = json.loads(path.read_text("utf-8"))["winners"][0]
    trials = (chain.output_dir / "search/trials.jsonl").read_bytes()
    path.unlink()
    result = call("search")
    assert "../winners.json is gone: done again" in result.stderr
    assert (chain.output_dir / "search/trials.jsonl").read_bytes() == trials
    again = call("export")
    assert again.exit_code == 0
    assert "finished before" in again.stderr
    after = json.loads(path.read_text("utf-8"))["winners"][0]
    assert after["architecture"] == before["architecture"]
    for figure in ("measured_p50", "measured_p95", "interval"):
        measured = [values["latency_ms"]["local-cpu"][figure] for values in (after, before)]
        assert measured[0] == measured[1]


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_engines_that_were_spoilt_are_built_again(call, chain, spoil):
    folder = chain.output_dir / "engines/w0"
    spoil(folder / "subnet.ort")
    result = call("export", "export.tensorrt.compute_capabilities=[SM86, SM89]")
    assert result.exit_code == 0, result.output
    assert "files of a winner are missing or changed: done again" in result.stderr
    assert "subnet.ort" in read_manifest(folder)["files"]
