"""What can be known beforehand is refused before the first stage, or right after `profile`."""

import shutil

import pytest
from PIL import Image

from edgesearch.errors import (
    CheckpointError,
    DataError,
    InfeasibleError,
    SearchError,
    SpaceError,
    StageError,
    TrainingError,
    UserError,
)
from edgesearch.run import room


@pytest.fixture
def refused(empty):
    """The error of a run of these options; nothing has been measured or trained by then."""

    def refused(error=UserError, message="", **sections):
        with pytest.raises(error, match=message):
            empty.api(**sections).run()
        assert not (empty.output_dir / "supernet").exists()
        assert not (empty.output_dir / "latency").exists()

    return refused


def pictures(folder, sizes, labelled=True):
    for number, size in enumerate(sizes):
        path = folder / (f"class{number % 2}" if labelled else ".") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, number).save(path)
    return {"source": "folder", "root": str(folder), "licence": None}


@pytest.mark.parametrize("name", ["params", "macs", "activation_bytes", "weight_bytes"])
def test_a_budget_that_needs_no_table(refused, name):
    budgets = {"budgets": {"latency_ms": 1000, name: 5}}
    refused(InfeasibleError, f"{name} 5, but the minimum of this space is", search=budgets)


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"pretrain": {"batch_size": 2048, "queue_size": 2048}}, DataError, "one batch of 2048"),
        ({"pretrain": {"bn_group_size": 48}}, TrainingError, "divides the 64 images"),
        ({"pretrain": {"init": "nowhere.safetensors"}}, CheckpointError, "no such file"),
        ({"pretrain": {"device": "cuda"}}, TrainingError, "a CUDA device"),
        ({"pretrain": {"extend": True}}, StageError, "fewer than 2 epochs for pretrain.extend"),
        ({"search": {"images": 3}}, DataError, "at least 4 images to score"),
        ({"search": {"task": "detection", "stages": [7]}}, SearchError, "stages 1 to 2"),
        (
            {"search": {"budgets": {"devices": {"raspberry-pi-5": {"latency_ms": 9}}}}},
            StageError,
            "search.budgets.devices.raspberry-pi-5",
        ),
        ({"device": {"batch": 4096}}, UserError, "one batch"),
        (
            {"data": {"holdout": 0.0}, "export": {"output": "logits"}},
            DataError,
            "images with classes",
        ),
        ({"data": {"source": "folder", "root": "nowhere"}}, DataError, "nowhere"),
        ({"export": {"tensorrt": {"compute_capabilities": ["SM12"]}}}, UserError, "SM12"),
    ],
)
def test_options_that_do_not_fit(refused, sections, error, message):
    refused(error, message, **sections)


def test_images_of_two_sizes_for_batched_views(refused, tmp_path):
    data = pictures(tmp_path / "two", [(16, 16), (20, 16)] * 100)
    refused(DataError, "16 × 16 and 20 × 16 pixels among", data=data)


def test_no_classes_for_a_classifier(refused, tmp_path):
    data = pictures(tmp_path / "none", [(16, 16)] * 200, labelled=False)
    refused(DataError, "images with classes", data=data, export={"output": "logits"})


def test_networks_that_fit_neither_into_a_file_nor_into_memory(refused, empty):
    wide = {"stage_widths": [[4, 8], [8, 9000]]}
    refused(SpaceError, r"2.0 GiB of weights.*; found: 8.* GiB for .* parameters of", space=wide)
    with pytest.raises(SpaceError, match="the limit of an ONNX file"):
        empty.api(space=wide).profile()
    high = {"resolutions": [1_000_000]}
    refused(SpaceError, r"blocks fit into .* GiB of memory, all.*at least [\d,.]+ GiB", space=high)


def test_blocks_that_are_loaded_at_once(refused, monkeypatch, empty):
    """13 blocks of 0.1 MB each and 6 networks: no single one is large."""
    high = {"resolutions": [128]}
    blocks = empty.api(space=high).space.distinct_blocks()
    most = max(block.params + block.live_values for block in blocks) * 4
    monkeypatch.setattr(room, "machine_memory", lambda: 5 * most)
    message = rf"all loaded at once; found: at least .* for {len(blocks)} blocks of .* and 6 networ"
    refused(SpaceError, message, space=high, search={"batch_size": 2, "images": 8})


@pytest.mark.parametrize("stage", ["profile", "search", "rank", "evaluate", "export", "run"])
def test_every_stage_that_builds_the_largest_network_refuses_what_memory_cannot_hold(
    chain, monkeypatch, stage
):
    shutil.rmtree(chain.output_dir / "engines")
    shutil.rmtree(
        chain.output_dir / "latency" if stage == "profile" else chain.output_dir / "rank",
        ignore_errors=True,
    )
    monkeypatch.setattr(room, "machine_memory", lambda: 10_000)
    with pytest.raises(SpaceError, match=r"a supernet that fits into 0.0 MiB of memory; found: at"):
        getattr(chain.api(), stage)()


def test_a_training_that_fits_neither_into_memory_nor_onto_the_disk(refused, empty, monkeypatch):
    images = {"batch_size": 1024, "queue_size": 1024}
    monkeypatch.setattr(room, "machine_memory", lambda: 5_000_000)
    refused(TrainingError, "a training that fits into 4.8 MiB of memory", pretrain=images)
    monkeypatch.undo()
    full = shutil.disk_usage("/")._replace(free=100_000)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: full)
    message = r"about 0\.\d MiB of free space for training states and weights in .*; found: 0.1 MiB"
    refused(StageError, message)


def test_a_budget_out_of_reach_is_refused_between_profile_and_pretrain(chain):
    shutil.rmtree(chain.output_dir / "supernet")
    with pytest.raises(InfeasibleError, match="latency_ms 1e-06, but the minimum of this space is"):
        chain.api(search={"budgets": {"latency_ms": 1e-6}}).run()
    search = {"strategy": "exhaustive", "evaluations": 2, "population": None}
    with pytest.raises(SearchError, match="at most 2 feasible architectures"):
        chain.api(search=search).run()
    assert not (chain.output_dir / "supernet").exists()


def test_what_a_table_tells_is_refused_before_anything_is_timed(chain):
    shutil.rmtree(chain.output_dir / "supernet")
    said = chain.refuses("run", "search.budgets.latency_ms=1e-6", says="latency_ms 1e-06, but the")
    assert "plan: " not in said


def test_without_a_table_a_budget_that_seems_out_of_reach_is_told(empty):
    said = empty.refuses("run", "search.budgets.latency_ms=1e-6", says="latency_ms 1e-06, but the")
    doubt = "plan: warning: 1e-06 ms seems out of reach: the smallest network takes 0."
    assert said.index(doubt) < said.index("\nprofile ")
    assert not (empty.output_dir / "supernet").exists()


@pytest.mark.parametrize("command", ["run", "plan", "clean"])
def test_a_file_in_place_of_the_output_folder(empty, command):
    empty.output_dir.write_text("mine")
    said = empty.refuses(command, says="out is a file\n  Choose another folder: output_dir=PATH.")
    assert "plan: " not in said
    assert empty.output_dir.read_text() == "mine"


def test_the_range_of_the_space_is_told_beside_the_budgets(finished):
    said = finished[1].stderr
    assert "architectures are within the budgets (latency ≤ 1000.000 ms; MACs ≤ 700,000)" in said
    assert "predicted medians of the space: 0." in said
    assert said.index("are within the budgets") < said.index("\npretrain")
    assert "plan: pretrain: 2 epochs of" in said
