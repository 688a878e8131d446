"""The state of a run as a file."""

import os
import resource

import pytest
import torch

from devices.errors import FileError
from devices.values import in_yaml
from edgesearch.errors import CheckpointError
from edgesearch.training.checkpoint import has_state, load_state, save_state

IDENTITY = {"space": "abc", "seed": 0, "lr": 0.03, "crop_scale": (0.2, 1.0)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"identity": IDENTITY, "tensor": torch.arange(5.0), "nested": {"a": [1]}})
    return path


def test_comes_back(path):
    state = load_state(path, IDENTITY)
    assert torch.equal(state["tensor"], torch.arange(5.0))
    assert state["nested"] == {"a": [1]}
    assert state["identity"] == IDENTITY
    assert os.listdir(path.parent) == ["state.pt"]


@pytest.mark.parametrize(
    ("field", "value"), [("seed", 1), ("lr", 0.06), ("space", "xyz"), ("new", "here")]
)
def test_another_run_is_refused_by_the_name_of_the_field(path, field, value):
    expected = rf"a training state with {field} {value!r} at .*; found: {field} "
    with pytest.raises(CheckpointError, match=expected) as error:
        load_state(path, {**IDENTITY, field: value})
    assert in_yaml(IDENTITY.get(field)) in error.value.found
    assert "choose another output_dir" in error.value.remedy


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\0" * 100, b"\x80\x02", b"PK\x03\x04 not a zip", b"(", b".", b"K"],
)
def test_garbage(path, content):
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match="a training state of edgesearch at .*state.pt; found"
    ):
        load_state(path, IDENTITY)


class TestStateBefore:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "state.pt"
        for number in range(3):
            progress = {"epoch": 2, "step": 7 * number, "replaced": 0}
            save_state(path, {"identity": IDENTITY, "number": number, "progress": progress})
        return path

    def test_is_kept(self, path):
        assert sorted(os.listdir(path.parent)) == ["state.previous.pt", "state.pt"]
        assert load_state(path, IDENTITY)["number"] == 2
        assert load_state(path.with_name("state.previous.pt"), IDENTITY)["number"] == 1

    def test_stands_in_for_a_damaged_one_and_says_so(self, path):
        path.write_bytes(path.read_bytes()[:100])
        with pytest.warns(UserWarning, match=r"state.pt is damaged: continuing .*, after"):
            assert load_state(path, IDENTITY)["number"] == 1

    @pytest.mark.parametrize(
        ("progress", "place"),
        [({"epoch": 2, "step": 7}, "step 7 of epoch 3"), ({"epoch": 2, "step": 0}, "epoch 2")],
    )
    def test_is_told_with_its_place(self, path, progress, place):
        for _ in range(2):
            save_state(path, {"identity": IDENTITY, "progress": progress})
        path.write_bytes(b"garbage")
        told = []
        load_state(path, IDENTITY, told.append)
        expected = f"{path} is damaged: continuing from the previous state, after {place}"
        assert told == [expected]

    def test_stays_whole_when_the_next_one_is_damaged_too(self, path):
        for _ in range(2):
            path.write_bytes(b"garbage")
            with pytest.warns(UserWarning, match="is damaged"):
                assert load_state(path, IDENTITY)["number"] == 1
            assert load_state(path, IDENTITY)["number"] == 1
        save_state(path, {"identity": IDENTITY, "number": 5})
        assert load_state(path.with_name("state.previous.pt"), IDENTITY)["number"] == 1
        assert load_state(path, IDENTITY)["number"] == 5

    def test_is_found_without_the_last_one(self, path):
        assert has_state(path)
        path.unlink()
        assert has_state(path)
        assert load_state(path, IDENTITY)["number"] == 1
        path.with_name("state.previous.pt").unlink()
        assert not has_state(path)

    def test_of_another_run_is_refused(self, path):
        path.write_bytes(b"garbage")
        with (
            pytest.warns(UserWarning, match="is damaged"),
            pytest.raises(CheckpointError, match="with seed 5 at .*; found: seed 0"),
        ):
            load_state(path, IDENTITY | {"seed": 5})

    def test_damaged_too(self, path):
        for name in ("state.pt", "state.previous.pt"):
            path.with_name(name).write_bytes(b"garbage")
        with pytest.raises(CheckpointError, match="state of edgesearch at .*/state.pt; found"):
            load_state(path, IDENTITY)


def test_file_and_renaming_are_brought_to_the_disk(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    save_state(path, {"identity": IDENTITY})
    assert synced == [path.stat().st_ino, path.parent.stat().st_ino]


@pytest.mark.parametrize("foreign", [{"weight": torch.zeros(1)}, [1, 2], torch.zeros(3)])
def test_a_file_of_someone_else(path, foreign):
    torch.save(foreign, path)
    with pytest.raises(CheckpointError, match="found: ValueError: not a training state"):
        load_state(path, IDENTITY)


class _Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_nothing_in_a_file_is_run(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    torch.save({"format": "edgesearch-training-state-1", "identity": _Trap()}, path)
    expected = "found: UnpicklingError: damaged, or with more in it than tensors and plain values"
    with pytest.raises(CheckpointError, match=expected) as error:
        load_state(path, IDENTITY)
    assert "weights_only" not in str(error.value)
    assert not os.path.exists("sprung")


def test_a_full_disk_leaves_the_former_state(path):
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard_limit))  # as if the disk were full
    try:
        with pytest.raises(FileError, match="to write .*state.pt; found: "):
            save_state(path, {"identity": {}, "tensor": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft_limit, hard_limit))
    assert torch.equal(load_state(path, IDENTITY)["tensor"], torch.arange(5.0))
    assert os.listdir(path.parent) == ["state.pt"]
