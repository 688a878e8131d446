"""What a training refuses before anything is set aside, and what it says and does all the same."""

import json
import re
import shutil

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from edgesearch.errors import CheckpointError, DataError, SpaceError, StageError, TrainingError
from edgesearch.families import space_from_dict
from edgesearch.pretrain import computation
from edgesearch.pretrain.computation import USUAL, Computation
from edgesearch.processes import distributed
from edgesearch.search.agreement import make_agreement
from edgesearch.stages.pretrain import check_pretrain
from edgesearch.supernet.calibrate import recalibrate

ONE_EPOCH = {"epochs": 1}
WEIGHTS = "supernet/model.safetensors"


@pytest.fixture
def trained(empty):
    """Trains in a folder of this name for an epoch, and gives the folder and what was said."""

    def trained(name, data=None, **options):
        folder = empty.output_dir.with_name(name)
        said = []
        chain = type(empty)(empty.config, folder)
        run = chain.api(data=data or {}, pretrain={**ONE_EPOCH, **options})
        run.report = lambda event: said.append(event.message)
        run.pretrain()
        return folder, "\n".join(said)

    return trained


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"batch_size": 2048, "queue_size": 2048},
            DataError,
            "at least one batch of 2048 images for training; found: 1438 images",
        ),
        (
            {"bn_group_size": 48},
            TrainingError,
            "a pretrain.bn_group_size that divides the 64 images",
        ),
    ],
)
def test_a_finished_training_stays_where_it_is(chain, options, error, message):
    before = chain.read("supernet/stage.json")
    with pytest.raises(error, match=message):
        chain.api(pretrain=options).pretrain()
    assert chain.read("supernet/stage.json") == before
    assert not (chain.output_dir / "supernet.1").exists()
    assert chain.api().pretrain().skipped


def test_other_images_than_those_of_the_first_process(empty, monkeypatch):
    monkeypatch.setattr(distributed, "of_first", lambda value: dict.fromkeys(value, "another"))
    with pytest.raises(StageError, match="the set of images to be the same for all processes; fo"):
        empty.api().pretrain()


def test_nothing_that_can_be_read(chain, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"nothing")
    folder = ("data.source=folder", f"data.root={tmp_path / 'images'}")
    chain.refuses("pretrain", *folder, says=("at least one image in", "none of 1"))


def test_a_half_written_state_of_a_stopped_training(chain):
    folder = chain.output_dir / "supernet"
    chain.write("supernet/stage.json", {**chain.read("supernet/stage.json"), "finished": False})
    state = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(state[: len(state) // 2])
    weights = (folder / "model.safetensors").read_bytes()
    said = chain.passes("pretrain").stderr
    told = r"state.pt is damaged: continuing from the previous state, after epoch 1"
    assert len(re.findall(told, said)) == 1
    assert "pretrain 2/2" in said and "pretrain 1/2" not in said
    assert (folder / "model.safetensors").read_bytes() == weights


class TestWeightsToStartFrom:
    def test_its_own_are_none(self, chain):
        for init in ("", "supernet", WEIGHTS):
            message = "weights of another run for pretrain.init; found: .*, which this run writes"
            with pytest.raises(CheckpointError, match=message):
                chain.api(pretrain={"init": str(chain.output_dir / init)}).pretrain()
        assert chain.api().pretrain().skipped

    def test_of_another_space_are_none(self, finished, empty):
        other = {"stage_depths": [[1, 2], [1]]}
        run = empty.api(space=other, pretrain={"init": str(finished[0].output_dir)})
        with pytest.raises(CheckpointError, match="with stage_depths .*; found: stage_depths"):
            run.pretrain()
        assert not (empty.output_dir / "supernet").exists()

    def test_of_another_run_are_a_start(self, finished, empty):
        init = {"init": str(finished[0].output_dir), **ONE_EPOCH}
        empty.api(pretrain=init).pretrain()
        assert (empty.output_dir / WEIGHTS).read_bytes() != (
            finished[0].output_dir / WEIGHTS
        ).read_bytes()
        assert empty.api(pretrain=init).pretrain().skipped

    def test_of_another_method_are_said(self, finished, trained):
        init = str(finished[0].output_dir)
        _, said = trained("simclr", method="simclr", queue_size=None, init=init)
        assert "the initial weights were trained by moco_v2: simclr uses the backbones" in said
        assert "the initial weights" not in trained("moco", init=init)[1]


class TestPublicWeights:
    """A run that begins with a trained network, saved as torchvision does."""

    SPACE = {"stem_stride": 1}
    MEMBER = {"stem_widths": [4], "stage_widths": [[8], [8]], "stage_depths": [[1], [2]]}

    @pytest.fixture
    def network(self, empty, tmp_path):
        """The trained network; its weights are in `public.pth`."""
        space = empty.api(space=self.SPACE).space
        source = space_from_dict({**space.to_dict(), **self.MEMBER})
        torch.manual_seed(5)
        network = source.make_network(source.blocks(source.largest))
        network.train()(torch.rand(64, 1, 16, 16))
        torch.save(network.state_dict(), tmp_path / "public.pth")
        return network.eval()

    @pytest.fixture
    def run(self, empty, network, tmp_path):
        def run(**options):
            init = {"init": str(tmp_path / "public.pth"), **ONE_EPOCH, **options}
            return empty.api(space=self.SPACE, pretrain=init)

        return run

    def test_without_training_the_supernet_holds_the_network(self, run, network):
        run = run(epochs=0, init_licence="MIT")
        run.pretrain()
        weights = run.load_weights()
        images = torch.rand(4, 1, 16, 16)
        with torch.no_grad():
            for architecture in (run.space.from_choices(weights.origin.member), run.space.largest):
                features = weights.subnet(architecture)(images)
                torch.testing.assert_close(features[:, :8], network(images))
        origin = weights.origin
        assert (origin.licence, origin.trained) == ("MIT", False)
        assert origin.source == "public.pth (torchvision's form (torchvision, timm, DINO))"
        assert run.pretrain().skipped

    def test_network_that_is_whole_keeps_its_statistics(self, run, network):
        """What was cut is recalibrated; candidates scored together do not mix the two."""
        run = run(epochs=0)
        run.pretrain()
        weights, space = run.load_weights(), run.space
        member = space.from_choices(weights.origin.member)
        images = torch.rand(64, 1, 16, 16)
        for architecture, kept in ((member, True), (space.smallest, False)):
            subnet = weights.subnet(architecture)
            before = subnet.bn1.running_mean.clone()
            recalibrate(subnet, images)
            assert torch.equal(subnet.bn1.running_mean, before) == kept
            assert not subnet.training or not kept
        scores = make_agreement(weights, run.open_images(), run.config.search)
        together = list(scores.all_scores(list(space), 16))
        alone = [scores.scores(architecture, 16) for architecture in space]
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other)

    def test_training_starts_from_it_and_uses_its_normalisation(self, run, tmp_path):
        said = []
        run = run()
        run.report = lambda event: said.append(event.message)
        run.pretrain()
        assert "held by stem" in "".join(said)
        assert "their licence is unknown: state it as pretrain.init_licence" in "".join(said)
        assert run.load_weights().origin.trained
        (tmp_path / "public.pth").unlink()
        assert run.open_images().preprocess(16).mean == (0.449,)

    def test_another_run_that_starts_from_it_keeps_the_normalisation(self, run, empty):
        first = run(epochs=0)
        first.pretrain()
        options = {"init": str(first.files.output_dir), **ONE_EPOCH}
        second = type(empty)(empty.config, empty.output_dir.with_name("second"))
        second = second.api(space=self.SPACE, pretrain=options)
        second.pretrain()
        assert second.load_weights().origin.member == first.load_weights().origin.member
        assert second.open_images().preprocess(16).mean == (0.449,)

    def test_of_colour_images_are_summed_for_grey_ones_if_asked_for(self, empty, tmp_path):
        space = empty.api(space=self.SPACE).space
        coloured = space_from_dict({**space.to_dict(), **self.MEMBER, "in_channels": 3})
        network = coloured.make_network(coloured.blocks(coloured.largest)).eval()
        torch.save(network.state_dict(), tmp_path / "public.pth")
        options = {"init": str(tmp_path / "public.pth"), "epochs": 0}
        with pytest.raises(SpaceError, match="in_channels 1, not 3. For grey images, p"):
            empty.api(space=self.SPACE, pretrain=options).pretrain()
        run = empty.api(space=self.SPACE, pretrain={**options, "init_grey": True})
        run.pretrain()
        assert run.open_images().preprocess(16).mean == (0.449,)
        weights = run.load_weights()
        found = weights.subnet(run.space.from_choices(weights.origin.member)).conv1.weight
        scales = 0.226 / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        expected = (network.conv1.weight * scales).sum(dim=1, keepdim=True)
        torch.testing.assert_close(found, expected)

    def test_of_another_network_are_refused_before_anything_is_set_aside(self, run, tmp_path):
        torch.save({"encoder.weight": torch.zeros(3)}, tmp_path / "public.pth")
        with pytest.raises(CheckpointError, match="1 tensors of another one: encoder.weight"):
            run().pretrain()
        assert not run().files.supernet.exists()

    def test_no_training_without_weights(self, empty):
        with pytest.raises(ValidationError, match="weights are required, since pretrain.epochs"):
            empty.api(pretrain={"epochs": 0})


def test_few_images_a_large_queue_and_tiny_images_are_said(chain, trained, tmp_path):
    (tmp_path / "flat").mkdir()
    for number in range(80):
        Image.new("L", (16, 16), 3 * number).save(tmp_path / "flat" / f"{number}.png")
    data = {"source": "folder", "root": str(tmp_path / "flat")}
    large = "a queue of 128 is more than a quarter of the 80 images"
    folder, said = trained("few", data)
    assert large in said
    assert "are enlarged" not in said
    # Of predictions, not of negatives, a queue does no harm.
    no_negatives = {"method": "ressl", "queue_size": 128}
    assert large not in trained("ressl", data, **no_negatives)[1]
    shutil.copytree(folder / "supernet", chain.output_dir / "few/supernet")
    for path in (tmp_path / "flat").iterdir():
        Image.open(path).resize((6, 7)).save(path)
    _, said = trained("tiny", data)
    assert "images with a short side of 6 pixels are enlarged to 16" in said


def test_a_collapse_is_said_once(chain, trained):
    """A decay so strong that nothing is left but the bias of the projector."""
    collapsing = {"weight_decay": 5, "lr": 0.06, "momentum": 0, "projector_bn": False, "epochs": 4}
    folder, said = trained("collapse", **collapsing)
    assert said.count("embeddings collapsed (spread 0.0") == 1
    lines = (folder / "supernet/metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["collapsed"] for line in lines] == [False, True, True, True]


class TestComputation:
    """What `auto` chose is part of what the training was made with."""

    AUTO = ("pretrain.precision=auto", "pretrain.memory_format=auto", "pretrain.epochs=1")
    FIRST = Computation("fp32", "channels_first")

    @pytest.fixture
    def times(self, monkeypatch):
        """Relative times of what is timed; the number of times it was asked for."""
        times = {USUAL: 2.0, self.FIRST: 1.0, "asked": 0}

        def measured(space, candidates, images, device):
            times["asked"] += 1
            return {each: times[each] for each in candidates}

        monkeypatch.setattr(computation, "step_times_s", measured)
        monkeypatch.setattr(computation, "computes_bf16", lambda device, sets: False)
        return times

    def record(self, chain):
        settings = chain.read("supernet/stage.json")["settings"]
        return settings["pretrain.precision"], settings["pretrain.memory_format"]

    def test_it_is_recorded_and_kept_when_the_training_goes_on(self, empty, times):
        said = empty.passes("pretrain", *self.AUTO).stderr
        assert "computes in fp32, channels first (this processor has no instructions for" in said
        assert self.record(empty) == ("fp32", "channels_first")
        weights = (empty.output_dir / WEIGHTS).read_bytes()
        times[USUAL] = 0.5  # another machine
        assert "already finished" in empty.passes("pretrain", *self.AUTO).stderr
        record = empty.read("supernet/stage.json")
        empty.write("supernet/stage.json", {**record, "finished": False})
        assert "resuming" in empty.passes("pretrain", *self.AUTO).stderr
        longer = ("pretrain.epochs=2", "pretrain.extend=true")
        empty.passes("pretrain", *self.AUTO[:2], *longer)
        assert self.record(empty) == ("fp32", "channels_first")
        assert times["asked"] == 1
        # Given, it is the same.
        same = ("pretrain.precision=fp32", "pretrain.memory_format=channels_first")
        assert "already finished" in empty.passes("pretrain", *same, *longer).stderr
        assert "is taken back" in empty.passes("pretrain", *self.AUTO).stderr
        assert (empty.output_dir / WEIGHTS).read_bytes() == weights
        # Anything else is another training.
        said = empty.passes("pretrain", *self.AUTO, "pretrain.memory_format=channels_last").stderr
        assert (
            "memory_format has changed from 'channels_first' to 'channels_last': starting" in said
        )
        assert self.record(empty) == ("fp32", "channels_last")

    def test_a_new_training_is_timed_anew(self, empty, times):
        empty.passes("pretrain", *self.AUTO)
        times[USUAL] = 0.5
        empty.passes("pretrain", *self.AUTO, "pretrain.lr=0.01")
        assert (times["asked"], self.record(empty)) == (2, ("fp32", "channels_last"))

    def test_bf16_that_began_elsewhere_goes_on_and_is_told(self, empty, monkeypatch, times):
        monkeypatch.setattr(computation, "computes_bf16", lambda device, sets: True)
        bf16 = Computation("bf16", "channels_last")
        times |= {bf16: 0.1, Computation("bf16", "channels_first"): 3.0}
        empty.passes("pretrain", *self.AUTO)
        assert self.record(empty) == ("bf16", "channels_last")
        record = empty.read("supernet/stage.json")
        empty.write("supernet/stage.json", {**record, "finished": False})
        monkeypatch.setattr(computation, "computes_bf16", lambda device, sets: False)
        said = empty.passes("pretrain", *self.AUTO).stderr
        assert "warning: computes in bf16, channels last, but this processor has no" in said
        assert "it goes on with what it began with" in said
        assert self.record(empty) == ("bf16", "channels_last")

    def test_an_early_check_times_nothing(self, empty, times):
        check_pretrain(empty.api(pretrain={"precision": "auto", "memory_format": "auto"}), False)
        assert times["asked"] == 0
