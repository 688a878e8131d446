"""A teacher's maps as targets: what is kept of them, where there are none, and kills."""

import json
import shutil
import signal
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgesearch.errors import StageError, TrainingError
from edgesearch.events import Event, silent
from edgesearch.families import space_from_dict
from edgesearch.run import room
from edgesearch.run.room import disk_needed
from edgesearch.stages.plan import Planner
from edgesearch.stages.pretrain import check_pretrain, prepare_training, pretrain_stage

DIGITS = 1438
"""Training images."""
SMALL = {"resolutions": [8]}


class Quarters(nn.Module):
    """Mean and contrast of each quarter of an image, as a map or as it is."""

    def __init__(self, places: int = 2) -> None:
        super().__init__()
        self.places = places

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images[:, :1]
        mean = nn.functional.adaptive_avg_pool2d(x, self.places)
        square = nn.functional.adaptive_avg_pool2d(x * x, self.places)
        return torch.cat([mean, (square - mean * mean).sqrt(), 1 - mean], dim=1)


@pytest.fixture
def teacher(tmp_path):
    """The section of a teacher with so many places a side; 0 for embeddings."""

    def teacher(places=2, **options):
        path = tmp_path / f"teacher{places}.pt"
        network = Quarters(places) if places else nn.Sequential(Quarters(2), nn.Flatten())
        torch.jit.script(network).save(path)
        form = {"size": 12, "mean": [0.0] * 3, "std": [1.0] * 3}
        return {"torchscript": str(path), **form, "crops": 2, **options}

    return teacher


@pytest.fixture
def taught(empty, teacher):
    """A run of densecl with a teacher beside."""

    def taught(places=2, space=SMALL, method="densecl", **options):
        return empty.api(
            space=space, pretrain={"method": method, "teacher": teacher(places, **options)}
        )

    return taught


def prepared(run, report=silent):
    """The trainer of a run."""
    pool = run.open_images()
    return prepare_training(run, pretrain_stage(run, pool), pool, report, early=True).trainer


def test_maps_are_kept_beside_embeddings(taught):
    folder, values = taught().files.output_dir / "teacher", DIGITS * 3
    embeddings = prepared(taught(method="moco_v2", crops=1))  # learns the mean of a map
    embeddings.teaching.fill(lambda: None)
    assert (folder / "teacher.f16").stat().st_size == values * 2
    written = (folder / "teacher.f16").stat().st_mtime_ns
    maps = prepared(taught(crops=1))
    assert maps.taught_bytes == values * 4 * 2
    maps.teaching.fill(lambda: None)
    assert (folder / "maps" / "teacher.f16").stat().st_size == values * 4 * 2
    assert (folder / "teacher.f16").stat().st_mtime_ns == written
    for run, missing in (
        (taught(crops=1, dense=False), 0),
        (taught(crops=1, method="moco_v2", dense=True), 0),
        (taught(crops=1, grid=1), values * 2),
    ):
        assert prepared(run).taught_bytes == missing


class TestWithoutMaps:
    @pytest.mark.parametrize("places", [0, 1], ids=["embeddings", "one place"])
    def test_of_the_teacher_embeddings_are_compared(self, taught, places):
        told = []
        trainer = prepared(taught(places), lambda event: told.append(event.message))
        expected = f"not maps: no map of several places from the teacher, teacher{places}.pt"
        assert len([text for text in told if text.endswith(expected)]) == 1
        assert trainer.teaching.cache.grid is None
        with pytest.raises(TrainingError, match=f"dense; found: no map .* teacher{places}.pt. Lea"):
            check_pretrain(taught(places, dense=True), anew=True)

    def test_of_the_subnets(self, taught):
        space = {"resolutions": [2]}
        with pytest.raises(
            TrainingError, match="found: a single place .* at 2 pixels. Leave .* la"
        ):
            check_pretrain(taught(space=space, dense=True), anew=False)
        check_pretrain(taught(space=space), anew=False)

    def test_of_rank_three_the_command_says_what_is_required(self, empty, teacher, tmp_path):
        section = teacher()
        network = nn.Sequential(Quarters(2), nn.Flatten(2))
        torch.jit.script(network).save(section["torchscript"])
        for dense in (None, True):
            values = str({**section, "dense": dense}).replace("None", "null")
            values = values.replace("True", "true")
            own = ("pretrain.method=densecl", f"pretrain.teacher={values}")
            says = "1 × 3 × 4 for 1 images" if dense is None else "no map of several places"
            empty.refuses("pretrain", *own, says=says)


def test_a_disk_without_room_for_the_maps(taught, monkeypatch):
    run = taught()
    maps = DIGITS * 2 * 3 * 4 * 2
    assert Planner(run)._disk_bytes() == disk_needed(run) + maps
    for free, missing in ((-1, True), (0, False)):
        room_for_all = shutil.disk_usage("/")._replace(free=disk_needed(run) + maps + free)
        monkeypatch.setattr(room.shutil, "disk_usage", lambda path, found=room_for_all: found)
        refused = pytest.raises(StageError, match=r"MiB of a teacher's maps in .*; found: ")
        with refused if missing else nullcontext():
            check_pretrain(run, anew=False)


def test_public_weights_teach_their_maps(empty, tmp_path):
    """The head begins with their regression, place by place, and all subnets come closer."""
    colour = {"stem_stride": 1, "in_channels": 3, **SMALL}
    space = empty.api(space=colour).space
    member = {"stem_widths": [4], "stage_widths": [[8], [8]], "stage_depths": [[1], [2]]}
    source = space_from_dict({**space.to_dict(), **member})
    torch.manual_seed(5)
    network = source.make_network(source.blocks(source.largest))
    network.train()(torch.rand(64, 3, 8, 8))
    torch.save(network.state_dict(), tmp_path / "public.pth")
    pretrain = {
        **{"init": str(tmp_path / "public.pth"), "method": "distillation", "queue_size": None},
        **{"projector_hidden_dim": None, "projector_bn": None, "lr": 0.01},
        "teacher": {"init": True, "size": 16, "dense": True, "grid": 3, "crops": 1},
    }
    run = empty.api(space=colour, pretrain=pretrain)
    run.pretrain()
    cache = run.files.output_dir / "teacher/maps/teacher.f16"
    assert cache.stat().st_size == DIGITS * 8 * 9 * 2
    lines = (run.files.supernet / "metrics.jsonl").read_text().splitlines()
    before, after = (json.loads(line) for line in lines)
    for name in ("loss_largest", "loss_smallest", "loss_random"):
        assert after[name] < 0.9 * before[name] < 0.05
    assert prepared(run).begins_head


class Killed(BaseException):
    """Ends a run without another word."""


def test_killed_while_maps_are_made_and_while_they_are_learnt(
    empty, chain_in, taught, teacher, tmp_path
):
    form = str(teacher(crops=1)).replace("'", "")
    own = ("pretrain.method=densecl", f"pretrain.teacher={form}", "space.resolutions=[8]")
    undisturbed = chain_in(tmp_path / "undisturbed")
    undisturbed.passes("pretrain", *own)
    run = taught(crops=1)

    def kill(event: Event) -> None:
        if "embeds" in event.message and event.done > 300:
            raise Killed

    run.report = kill
    with pytest.raises(Killed):
        run.pretrain()
    made = (run.files.output_dir / "teacher/maps/teacher.f16").stat().st_size
    assert 0 < made < DIGITS * 3 * 4 * 2
    when = (run.files.supernet / "state.pt").exists
    killed = empty.stopped("pretrain", signal.SIGKILL, when, *own)
    assert killed.returncode == -signal.SIGKILL
    again = empty.passes("pretrain", *own)
    assert f"maps of {DIGITS:,} of {DIGITS:,} images are kept from before" in again.stderr
    first, second = (
        load_file(each.output_dir / "supernet/model.safetensors") for each in (undisturbed, empty)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
