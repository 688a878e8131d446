"""What the user has to mend, on a finished run: one message, exit code 2, nothing lost."""

import json
import re
import shutil
import sys

import pytest
from PIL import Image

from devices import load_device
from devices.runtimes.tensorrt_bindings import FAMILIES
from edgesearch.export.manifest import read_manifest
from edgesearch.latency.load_table import corrected_model
from profilers import LatencyTable

WEIGHTS = "supernet/model.safetensors"


def write_images(folder, count, factor=3):
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("L", (16, 16), factor * number).save(folder / f"{number}.png")


@pytest.fixture
def flat(tmp_path):
    """Overrides that name a folder of 80 images without classes."""
    write_images(tmp_path / "flat", 80)
    return "data.source=folder", f"data.root={tmp_path / 'flat'}"


@pytest.fixture
def labelled(tmp_path):
    """A folder of images in two classes, and overrides that name it."""
    root = tmp_path / "labelled"
    for part in ("train/a", "train/b", "test/a", "test/b"):
        write_images(root / part, 20, 12)
    return root, ("data.source=folder", f"data.root={root}")


@pytest.fixture
def without(monkeypatch):
    """Make modules impossible to import."""
    return lambda *names: [monkeypatch.setitem(sys.modules, name, None) for name in names]


@pytest.mark.parametrize("budget", ["latency_ms", "latency_p95_ms"])
def test_infeasible_budget_says_what_can_be_reached(chain, budget):
    kept = [chain.output_dir / "winners.json", chain.output_dir / "search/trials.jsonl"]
    before = [path.read_bytes() for path in kept]
    said = chain.refuses("search", f"search.budgets.{budget}=0.0001", says=f"{budget} ≤ 0.0001")
    words = rf"{budget} 0.0001, but the minimum of this space is ([\d.]+)"
    model = corrected_model(chain.space, LatencyTable.load(chain.table))
    ratio = model.correction.p95_ratio if budget == "latency_p95_ms" else 1
    least_ms = ratio * model.predict_all().min()
    assert float(re.search(words, said)[1]) == pytest.approx(least_ms, rel=1e-3)
    assert [path.read_bytes() for path in kept] == before
    assert "already finished" in chain.passes("search").stderr


def test_as_json_the_error_is_the_only_output(chain):
    error = json.loads(chain.call("search", "search.budgets.params=10", "--json").stdout)["error"]
    assert set(error) == {"required", "found", "remedy"}
    assert "the minimum of this space is" in error["found"]


def test_a_table_of_other_threads_names_the_field(chain):
    message = "latency table of local-cpu at"
    chain.refuses("search", "device.threads=2", says=(message, "edgesearch profile"))
    other = load_device("local-cpu", threads=2)
    path = chain.table.with_name(f"local-cpu-{other.identity}.jsonl")
    shutil.copy(chain.table, path)
    for stage in ("search", "profile"):
        message = f"a latency table of threads 2 at {path}\n  found: threads 1"
        chain.refuses(stage, "device.threads=2", says=message)
    # With a table of its own, its winners are still those of the first.
    header, rest = path.read_text("utf-8").split("\n", 1)
    path.write_text(f"{json.dumps({**json.loads(header), 'device': other.to_dict()})}\n{rest}")
    wanted = ("winners for a device with threads 2", "found: winners for threads 1")
    chain.refuses("export", "device.threads=2", says=wanted)


def damage_table(chain):
    lines = chain.table.read_text("utf-8").splitlines()
    lines[5] = lines[5][:-10]
    chain.table.write_text("\n".join(lines) + "\n", "utf-8")


def change_weights(chain):
    content = bytearray((chain.output_dir / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (chain.output_dir / WEIGHTS).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "stage", "override", "says"),
    [
        (None, "search", "space.stem_widths=[4, 8, 12]", "of its blocks, such as"),
        (damage_table, "search", "seed=0", "line 6"),
        (lambda c: (c.output_dir / WEIGHTS).unlink(), "search", "seed=0", "edgesearch pretrain"),
        (lambda c: (c.output_dir / WEIGHTS).unlink(), "export", "seed=0", "edgesearch pretrain"),
        (
            lambda c: (c.output_dir / WEIGHTS).write_bytes(b"cut off"),
            "search",
            "seed=0",
            "supernet weights in safetensors form at",
        ),
        (change_weights, "export", "seed=0", "winners found with the weights in"),
        (
            lambda c: (c.output_dir / "search/chosen.json").write_text("{"),
            "export",
            "seed=0",
            "chosen.json, which `edgesearch search` writes",
        ),
    ],
)
def test_what_a_stage_reads_is_missing_damaged_or_of_something_else(
    chain, spoil, stage, override, says
):
    if spoil is not None:
        spoil(chain)
    chain.refuses(stage, override, says=says)


def keeps_its_engines(chain):
    assert (chain.output_dir / "engines/w0/kit.zip").is_file()
    assert not (chain.output_dir / "engines.1").exists()
    assert "already finished" in chain.passes("export").stderr


LOGITS = "export.output=logits"


@pytest.mark.parametrize(
    ("spoilt", "overrides", "says"),
    [
        (None, ["export.tensorrt.compute_capabilities=[SM90]"], "found: SM90"),
        (None, [LOGITS, "data.holdout=0"], "images with classes in"),
        ("test", ["labelled"], "that can be read\n  found: none of 40"),
        ("test", [LOGITS, "labelled"], "that can be read\n  found: none of 40"),
        ("train/b", [LOGITS, "labelled"], "found: none of b"),
        ("train", ["labelled"], "cannot identify image file"),
    ],
)
def test_what_is_refused_sets_no_engines_aside(chain, labelled, spoilt, overrides, says):
    root, data = labelled
    if spoilt is not None:
        for path in (root / spoilt).rglob("*.png"):
            path.write_text("no image")
    given = [each for o in overrides for each in (data if o == "labelled" else [o])]
    chain.refuses("export", *given, says=says)
    keeps_its_engines(chain)


def test_fewer_images_than_a_batch_set_no_engines_aside(chain, flat):
    for stage in ("profile", "search"):
        chain.passes(stage, "device.batch=96")
    many = "at least 96 images (one batch) to "
    chain.refuses("export", "device.batch=96", *flat, says=(many + "verify", "found: 80 images"))
    int8 = "export.tensorrt.precision=int8"  # 64 images for calibration
    chain.refuses("export", "device.batch=96", int8, says=(many + "convert", "found: 64"))
    assert (chain.output_dir / "engines/w0/kit.zip").is_file()
    assert not (chain.output_dir / "engines.1").exists()


def test_what_is_finished_needs_no_libraries(chain, without):
    without(*FAMILIES["tensorrt-rtx"].modules)
    for stage in ("export", "run"):
        assert "export: already finished" in chain.passes(stage).stderr
        other = "export.tensorrt.compute_capabilities=[SM86]"
        said = chain.refuses(stage, other, says=("TensorRT for RTX", "pip install"))
        assert "already finished" not in said
    without("safetensors")
    chain.passes("export")


@pytest.mark.parametrize(
    "overrides",
    [
        [LOGITS],
        ["device.name=rtx-pc", "export.batch=dynamic"],
        ["data.root=missing"],
        ["export.tensorrt.compute_capabilities=[SM90]"],
    ],
)
def test_what_stops_a_late_stage_is_said_before_the_first(empty, flat, overrides):
    assert "profile" not in empty.refuses("run", *flat, *overrides)
    assert not empty.output_dir.exists()


def test_winners_that_a_search_wrote_again_get_their_latencies_back(chain):
    path = chain.output_dir / "winners.json"
    before = path.read_bytes()
    shutil.copy(chain.output_dir / "search/chosen.json", path)
    assert b"measured_p50" not in path.read_bytes()
    assert "already finished" in chain.passes("export").stderr
    assert path.read_bytes() == before
    trials = chain.lines("search/trials.jsonl")
    path.unlink()
    assert "already finished" in chain.passes("search").stderr
    assert chain.lines("search/trials.jsonl") == trials
    assert path.read_bytes() == (chain.output_dir / "search/chosen.json").read_bytes()
    assert "already finished" in chain.passes("export").stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_engines_that_were_spoilt_are_built_again(chain, spoil):
    spoil(chain.output_dir / "engines/w0/subnet.ort")
    said = chain.passes("export").stderr
    assert "some of its files are missing or changed: starting again" in said
    assert "subnet.ort" in read_manifest(chain.output_dir / "engines/w0")["files"]
