"""Weights as files, and the networks that come out of them."""

import dataclasses
import errno
import json
import os
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from devices.errors import FileError
from edgesearch.errors import CheckpointError
from edgesearch.families import load_space
from edgesearch.pretrain.method import make_method
from edgesearch.supernet.calibrate import recalibrate
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import SupernetWeights, random_like

SPACE = load_space("resnet_tiny")


def make_weights(bn=True):
    parts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        projector = Projector(SPACE.feature_dim(SPACE.largest), 10, 6, bn)
        parts += [Supernet(SPACE).backbone.state_dict(), projector.state_dict()]
    return SupernetWeights(SPACE, *parts)


def states(weights):
    parts = {f.name: getattr(weights, f.name) for f in dataclasses.fields(weights)}
    return {name: part for name, part in parts.items() if isinstance(part, dict)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    make_weights().save(path)
    return path


@pytest.mark.parametrize("bn", [True, False])
def test_come_back_from_a_file(tmp_path, bn):
    """With everything that there can be: projectors for places, a method, other memory formats."""
    dim = SPACE.feature_dim(SPACE.largest)
    weights = dataclasses.replace(
        make_weights(bn),
        query=Supernet(SPACE).backbone.to(memory_format=torch.channels_last).state_dict(),
        query_dense_projector=Projector(dim, 9, 5, True).state_dict(),
        key_dense_projector=Projector(dim, 9, 5, True).state_dict(),
        method="byol",
    )
    weights.save(tmp_path / "model.safetensors")
    loaded = SupernetWeights.load(tmp_path / "model.safetensors", SPACE)
    assert (loaded.space, loaded.method) == (SPACE, "byol")
    for name, state in states(weights).items():
        found = getattr(loaded, name)
        assert set(found) == set(state)
        assert all(torch.equal(found[key], state[key]) for key in state)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_without_a_moving_average_the_trained_weights_are_saved_once(tmp_path):
    weights = make_weights()
    alone = dataclasses.replace(weights, key=weights.query, key_projector=weights.query_projector)
    path = tmp_path / "model.safetensors"
    alone.save(path)
    assert {name.split(".")[0] for name in load_file(path)} == {"query"}
    loaded = SupernetWeights.load(path, SPACE)
    assert loaded.key is loaded.query
    assert loaded.key_projector is loaded.query_projector
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(loaded.reference()(images), weights.embedder(SPACE.largest)(images))


def test_a_file_that_lacks_the_moving_average_is_damaged(path):
    tensors = {n: t for n, t in load_file(path).items() if not n.startswith("key.")}
    known = {"format": "edgesearch-supernet-1", "space": SPACE.to_dict()}
    save_file(tensors, path, {"edgesearch": json.dumps(known)})
    with pytest.raises(CheckpointError, match="found: KeyError: 'key.backbone'"):
        SupernetWeights.load(path, SPACE)


def test_saving_replaces_the_former_file(path):
    other = make_weights(bn=False)
    other.save(path)
    assert torch.equal(
        SupernetWeights.load(path, SPACE).query_projector["fc1.bias"],
        other.query_projector["fc1.bias"],
    )


def test_no_room(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="to write .*; found: .* A file is in the way"):
        make_weights().save(tmp_path / "file" / "model.safetensors")


def test_a_full_disk_leaves_the_former_file(path):
    former = path.read_bytes()
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard_limit))  # as if the disk were full
    try:
        with pytest.raises(FileError, match="room to write .*; found: .*too large"):
            make_weights(bn=False).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft_limit, hard_limit))
    assert path.read_bytes() == former
    assert os.listdir(path.parent) == [path.name]


def test_others_may_read_what_the_umask_lets_them_read(path):
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


def test_a_file_of_another_user_is_not_called_missing(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)  # root may read everything
    with pytest.raises(FileError, match=f"permission to read and write {path}; found: Permission"):
        SupernetWeights.load(path, SPACE)


def test_a_space_of_another_name_but_equal_is_taken(path):
    renamed = dataclasses.replace(SPACE, name="mine")
    assert SupernetWeights.load(path, renamed).space.name == "mine"


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="found: no such file.*edgesearch pretrain"):
        SupernetWeights.load(tmp_path / "none.safetensors", SPACE)
    with pytest.raises(CheckpointError, match="in safetensors form at"):
        SupernetWeights.load(tmp_path, SPACE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"garbage",
        lambda content: b"\x08" + b"\0" * 7 + b"nonsense",
        lambda content: b"\xff" * 64,
        lambda content: content[:-100],
    ],
)
def test_damaged_file(path, spoil):
    path.write_bytes(spoil(path.read_bytes()))
    message = "in safetensors form at .*model.safetensors; found: .*Move it away, and run"
    with pytest.raises(CheckpointError, match=message):
        SupernetWeights.load(path, SPACE)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_someone_else(path, metadata):
    save_file(load_file(path), path, metadata)
    with pytest.raises(CheckpointError, match=r"format 'edgesearch-supernet-1' at .*the format "):
        SupernetWeights.load(path, SPACE)


def test_the_same_weights_give_the_same_file(path, tmp_path):
    other = tmp_path / "other.safetensors"
    for _ in range(8):
        SupernetWeights.load(path, SPACE).save(other)
        assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("tensors", "space"),
    [
        ({"weight": torch.zeros(1)}, SPACE.to_dict()),
        ({"query.backbone.w": torch.zeros(1)}, SPACE.to_dict()),
        ({}, "no JSON"),
        ({}, None),
        ({}, {"family": "resnet"}),
    ],
)
def test_right_format_but_wrong_content(tmp_path, tensors, space):
    known = {"format": "edgesearch-supernet-1"} | ({} if space is None else {"space": space})
    save_file(tensors, tmp_path / "model.safetensors", {"edgesearch": json.dumps(known)})
    with pytest.raises(CheckpointError, match="supernet weights in safetensors form"):
        SupernetWeights.load(tmp_path / "model.safetensors", SPACE)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"in_channels": 1}, "in_channels 1"),
        ({"stem_widths": [8]}, r"stem_widths \[8\]"),
        ({"stem_stride": 1}, "stem_stride 1"),
    ],
)
def test_weights_of_another_space_name_the_field(path, change, field):
    with pytest.raises(CheckpointError, match=f"space 'resnet_tiny' with {field}; found: "):
        SupernetWeights.load(path, load_space("resnet_tiny", **change))


class TestNetworks:
    def test_embedder_is_the_query_side_and_reference_the_key_side(self):
        weights = make_weights()
        swapped = SupernetWeights(
            SPACE, weights.key, weights.key_projector, weights.query, weights.query_projector
        )
        images = torch.randn(3, 3, 32, 32)
        embeddings = weights.embedder(SPACE.largest)(images)
        assert torch.equal(embeddings, swapped.reference()(images))
        assert not torch.allclose(embeddings, weights.reference()(images))

    def test_embedder_projects_the_features_of_the_subnet(self):
        weights = make_weights()
        projector = Projector(SPACE.feature_dim(SPACE.largest), 10, 6, True).eval()
        projector.load_state_dict(weights.query_projector)
        images = torch.randn(3, 3, 32, 32)
        expected = projector(weights.subnet(SPACE.smallest)(images))
        torch.testing.assert_close(weights.embedder(SPACE.smallest)(images), expected)

    def test_networks_are_in_evaluation_mode_and_own_their_weights(self):
        weights = make_weights()
        for network in (weights.embedder(SPACE.largest), weights.reference()):
            assert not any(module.training for module in network.modules())
            before = weights.query["bn1.running_mean"].clone()
            recalibrate(network, torch.randn(4, 3, 32, 32))
            assert torch.equal(weights.query["bn1.running_mean"], before)

    def test_making_them_leaves_the_random_state_alone(self):
        weights = make_weights()
        state = torch.get_rng_state()
        weights.embedder(SPACE.smallest)
        weights.reference()
        assert torch.equal(torch.get_rng_state(), state)


class TestRandomLike:
    def test_follows_the_seed_and_leaves_the_random_state_alone(self):
        weights = make_weights()
        state = torch.get_rng_state()
        once, again, other = (random_like(weights, seed) for seed in (3, 3, 4))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(once.query[key], again.query[key]) for key in once.query)
        assert not torch.equal(once.query["conv1.weight"], other.query["conv1.weight"])

    @pytest.mark.parametrize("bn", [True, False])
    def test_is_what_a_training_starts_from(self, bn):
        sizes = {"queue_size": 8, "projector_hidden_dim": 10, "projector_dim": 6}
        method = make_method("moco_v2", SPACE, seed=3, projector_bn=bn, **sizes)
        weights = random_like(make_weights(bn), 3)
        for encoder, backbone, projector in (
            (method.query, weights.query, weights.query_projector),
            (method.key, weights.key, weights.key_projector),
        ):
            for module, state in (
                (encoder.supernet.backbone, backbone),
                (encoder.projector, projector),
            ):
                started = module.state_dict()
                assert set(started) == set(state)
                assert all(torch.equal(started[key], state[key]) for key in state)
