"""Fine-tuning for classification, from the command line to a stop in the middle."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from edgesearch.errors import CheckpointError, Interrupted, StageError
from edgesearch.formats.onnx_export import export_network
from edgesearch.stages.finetune import folder_of, open_finetuning
from edgesearch.tasks import finetuner
from edgesearch.tasks.finetuning import WEIGHTS

SECTION = {
    "task": "classification",
    "start": ["largest"],
    "weights": "random",  # needs no supernet
    "epochs": 2,
    "threads": 1,
    "tensorboard": False,
    "lr": 0.01,
    "augmentation": {"crop_scale": [0.7, 1.0], "flip_probability": 0},
}


@pytest.fixture(scope="module")
def finetuned(chain_in, tmp_path_factory):
    """A run with a trained classifier. Do not write into it."""
    chain = chain_in(tmp_path_factory.mktemp("finetuned"))
    return chain, chain.api(finetune=SECTION).finetune()


def test_learns_and_is_skipped_the_second_time(finetuned):
    chain, result = finetuned
    (row,) = result.rows
    assert row.name == "largest" and row.figures["accuracy"] > 0.3  # chance is 0.1
    assert row.train_images + row.test_images == 1797
    again = chain.api(finetune=SECTION).finetune()
    assert again.skipped and again.rows == result.rows


def test_the_exported_network_computes_the_same(finetuned, tmp_path):
    from onnxruntime import InferenceSession

    run = finetuned[0].api(finetune=SECTION)
    finetuning, largest = open_finetuning(run), run.space.largest
    model = finetuning.load(folder_of(run, largest), largest)
    path = tmp_path / "whole.onnx"
    export_network(model, path, input_shape=(1, 1, 16, 16), output_names=model.output_names)
    image = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    (found,) = InferenceSession(path).run(None, {"images": image.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(image).detach())


def test_stopped_in_an_epoch_it_ends_with_the_same_weights(finetuned, tmp_path, monkeypatch):
    chain = finetuned[0].copied(tmp_path)
    shutil.rmtree(chain.output_dir / "finetune")
    run = chain.api(finetune=SECTION)
    heard, steps = finetuner._heard, iter(range(1000))
    monkeypatch.setattr(finetuner, "_heard", lambda s: 2 if next(steps) == 60 else heard(s))
    monkeypatch.setattr(finetuner.Finetuner, "_stopped", lambda *_: "stopped")
    with pytest.raises(Interrupted):
        run.finetune()
    monkeypatch.undo()
    position = torch.load(folder_of(run, run.space.largest) / "state.pt")["progress"]
    assert position["epoch"] == 1 and position["step"] > 0
    run.finetune()
    one, other = (
        load_file(folder_of(each.api(), run.space.largest) / WEIGHTS)
        for each in (chain, finetuned[0])
    )
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_damaged_weights_are_made_again(finetuned, tmp_path):
    chain = finetuned[0].copied(tmp_path)
    run = chain.api(finetune=SECTION)
    path = folder_of(run, run.space.largest) / WEIGHTS
    before = load_file(path)
    content = path.read_bytes()
    path.unlink()  # what has been loaded is a map of the file
    path.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match="Move it away, and run `edgesearch finetune`"):
        open_finetuning(run).load(path.parent, run.space.largest)
    told = []
    run.report = lambda event: told.append(event.message)
    assert not run.finetune().skipped
    assert any(f"{WEIGHTS} has changed since it was made (kept as " in each for each in told)
    after = load_file(path)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert path.with_name(f"{WEIGHTS}.1").stat().st_size == 1000
    assert run.finetune().skipped


def test_another_number_of_classes_than_the_images_have_is_refused_when_finished(finetuned):
    run = finetuned[0].api(finetune={**SECTION, "classes": 7})
    for stage in (run.finetune, run.plan):
        with pytest.raises(StageError, match="finetune.classes 10, as the images have; found: 7"):
            stage()
    assert finetuned[0].api(finetune={**SECTION, "classes": 10}).finetune().skipped


def trained(empty, **options):
    """A short training, its state, and the run."""
    run = empty.api(finetune={**SECTION, "epochs": 1, "label_share": 0.1, **options})
    rows = run.finetune().rows
    return rows, torch.load(rows[-1].folder / "state.pt"), run


def test_a_probe_leaves_the_backbone_as_it_was(empty):
    rows, _, run = trained(empty, probe=True)
    kept = load_file(rows[0].folder / WEIGHTS)
    first = open_finetuning(run).subnet(run.space.largest).state_dict()
    backbone = [name for name in first if name.startswith("backbone.")]
    assert all(torch.equal(kept[name], first[name]) for name in backbone)
    assert not torch.equal(kept["head.fc.weight"], first["head.fc.weight"])


def test_the_average_of_the_best_epoch_is_kept(empty):
    rows, state, _ = trained(empty, ema=0.5, validation=0.2, patience=1, epochs=2)
    best = load_file(rows[0].folder / WEIGHTS)
    assert rows[0].epoch == state["progress"]["best_epoch"] > 0
    assert all(torch.equal(best[name], state["best"][name]) for name in best)
    assert not torch.equal(best["head.fc.weight"], state["model"]["head.fc.weight"])


def test_the_average_of_a_short_training_is_near_its_end(empty):
    rows, state, run = trained(empty, ema=0.98)
    first = open_finetuning(run).subnet(run.space.largest).state_dict()
    kept, last = load_file(rows[0].folder / WEIGHTS), state["model"]
    for name in ("head.fc.weight", "backbone.bn1.running_var"):
        way = torch.dist(first[name], last[name])
        assert 0 < torch.dist(kept[name], last[name]) < way / 3


def test_earlier_layers_learn_more_slowly(empty):
    options = {"optimizer": "sgd", "lr_decay": 0.5, "backbone_lr": 0.8, "norms": "frozen"}
    _, state, _ = trained(empty, **options)
    scales = [group["scale"] for group in state["optimizer"]["param_groups"]]
    assert list(dict.fromkeys(scales))[:3] == [1.0, 0.8, 0.4]
    assert int(state["model"]["backbone.bn1.num_batches_tracked"]) == 0


def test_the_smallest_imitates_the_largest(empty):
    rows, _, _ = trained(empty, distill=1.0, start=["smallest"])
    assert [row.name for row in rows] == ["largest", "smallest"]
    alone = empty.api(finetune={**SECTION, "epochs": 1, "label_share": 0.1, "start": ["smallest"]})
    taught = load_file(rows[1].folder / WEIGHTS)["head.fc.weight"]
    (row,) = alone.finetune().rows
    assert not torch.equal(load_file(row.folder / WEIGHTS)["head.fc.weight"], taught)


def test_shares_are_drawn_for_each_class(empty):
    run = empty.api(finetune={**SECTION, "label_share": 0.1, "validation": 0.25})
    images = open_finetuning(run).images
    whole = open_finetuning(empty.api(finetune=SECTION)).images.train.labels.bincount()
    kept, aside = (part.labels.bincount() for part in (images.train, images.validation))
    assert ((kept + aside) == (0.1 * whole).round().long()).all()
    assert ((kept + aside).mul(0.25).round() == aside).all()


def test_without_a_task_or_with_unknown_names(empty):
    empty.refuses("finetune", says="a task with labels")
    said = empty.refuses("finetune", "finetune.task=classification", "finetune.head=fcn")
    assert "a head for classification is required: one of linear" in said
    empty.refuses("finetune", "finetune.task=sorting", says="one of classification")


def test_json(finetuned):
    overrides = ["finetune.task=classification"]
    overrides += [
        f"finetune.{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in SECTION.items()
        if key != "task"
    ]
    found = finetuned[0].json("finetune", *overrides)
    assert found["skipped"] and found["rows"][0]["name"] == "largest"
