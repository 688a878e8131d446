"""Training runs of every method: resumed to the same end, and looked at by the search."""

import signal

import pytest
import torch
from safetensors.torch import load_file

from edgesearch.config.method_defaults import METHOD_DEFAULTS
from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.errors import CheckpointError, Interrupted, TrainingError
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.methods import METHODS
from edgesearch.pretrain.trainer import Trainer
from edgesearch.pretrain.trainer_config import TrainerConfig
from edgesearch.pretrain.views import Augmentation
from edgesearch.search.agreement import Agreement
from edgesearch.supernet.weights import SupernetWeights

IMAGES = open_images(DataSettings(source="digits"), 1).train.subset(range(96))
CONFIG = TrainerConfig(epochs=2, lr=0.05, warmup_epochs=1, distill=0.5, largest_only_epochs=1)


class StoppingLoader:
    """A loader that sends a signal before the batch of a step."""

    def __init__(self, loader, moment):
        self.loader, self.moment = loader, moment
        self.steps_per_epoch, self.replaced, self.views_s = loader.steps_per_epoch, 0, 0

    def batches(self, epoch, first_step):
        for step, views in enumerate(self.loader.batches(epoch, first_step), first_step):
            if (epoch, step) == self.moment:
                signal.raise_signal(signal.SIGINT)
            yield views


@pytest.fixture(scope="module")
def trainer_of(new_method):
    def trainer_of(folder, name, config=CONFIG, moment=None):
        queue = {"queue_size": 32} if "queue_size" in METHOD_DEFAULTS[name].options else {}
        method = new_method(name, **queue)
        loader = make_loader(
            IMAGES,
            method.views(Augmentation(flip_probability=0.0)),
            Preprocess(16, 1, (0.3,), (0.37,)),
            batched=True,
            batch_size=32,
            seed=config.seed,
            workers=0,
        )
        identity = {"pretrain.method": name, "seed": config.seed}
        return Trainer(method, StoppingLoader(loader, moment), config, folder, identity=identity)

    return trainer_of


@pytest.fixture(scope="module")
def undisturbed(trainer_of, tmp_path_factory):
    """The folder of a whole run, by the method's name."""
    folders = {name: tmp_path_factory.mktemp(name) for name in METHODS}
    for name, folder in folders.items():
        trainer_of(folder, name).fit()
    return folders


def flat(state, path=""):
    """Everything in a state, by its path."""
    if isinstance(state, dict):
        return {
            k: v for key, value in state.items() for k, v in flat(value, f"{path}/{key}").items()
        }
    if isinstance(state, list):
        return flat(dict(enumerate(state)), path)
    return {path: state}


def same(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("name", METHODS)
class TestEveryMethod:
    @pytest.mark.parametrize("moment", [(0, 1), (1, 0)])
    def test_goes_on_to_the_same_end(self, tmp_path, trainer_of, undisturbed, name, moment):
        with pytest.raises(Interrupted, match="stopped by SIGINT in epoch"):
            trainer_of(tmp_path, name, moment=moment).fit()
        trainer_of(tmp_path, name).fit()
        found, expected = (flat(torch.load(f / "state.pt")) for f in (tmp_path, undisturbed[name]))
        assert found.keys() == expected.keys()
        assert [key for key, value in expected.items() if not same(found[key], value)] == []
        weights, expected = (
            load_file(f / "model.safetensors") for f in (tmp_path, undisturbed[name])
        )
        assert all(torch.equal(weights[key], value) for key, value in expected.items())

    def test_state_of_another_method_is_refused(self, tmp_path, trainer_of, undisturbed, name):
        other = next(method for method in METHODS if method != name)
        (tmp_path / "state.pt").write_bytes((undisturbed[other] / "state.pt").read_bytes())
        expected = f"pretrain.method '{name}' at .*; found: pretrain.method '{other}'"
        with pytest.raises(CheckpointError, match=expected):
            trainer_of(tmp_path, name).fit()

    def test_the_search_can_score_its_weights(self, undisturbed, new_method, pinhole, name):
        weights = SupernetWeights.load(undisturbed[name] / "model.safetensors", pinhole)
        pixels = {side: torch.rand(48, 1, side, side) for side in pinhole.resolutions}
        score = Agreement(
            weights,
            lambda side, first, last: pixels[side][first:last],
            pixels.__getitem__,
            batch_size=16,
            images=48,
        )
        found = [score(architecture) for architecture in (pinhole.smallest, pinhole.largest)]
        assert all(-1 <= agreement <= 1 for agreement in found)
        alone = new_method(name).key is None
        assert (weights.key is weights.query) == alone
        assert (found[1] == pytest.approx(1)) == alone

    def test_embeddings_of_a_healthy_run_are_apart(self, tmp_path, trainer_of, name):
        reports = []
        trainer = trainer_of(tmp_path, name, TrainerConfig(epochs=1, lr=0.01))
        trainer.on_epoch = reports.append
        trainer.fit()
        assert 0.1 < reports[0].spread < 1.2


def test_weights_hold_the_projectors_of_places(undisturbed, pinhole):
    state = torch.load(undisturbed["densecl"] / "state.pt")["method"]
    weights = SupernetWeights.load(undisturbed["densecl"] / "model.safetensors", pinhole)
    for side in ("query", "key"):
        projector = getattr(weights, f"{side}_dense_projector")
        prefix = f"{side}.dense_projector."
        names = [key.removeprefix(prefix) for key in state if key.startswith(prefix)]
        assert sorted(projector) == sorted(names)
        assert all(torch.equal(projector[key], state[prefix + key]) for key in names)
    assert not torch.equal(
        weights.query_dense_projector["fc1.weight"], weights.query_projector["fc1.weight"]
    )
    other = SupernetWeights.load(undisturbed["byol"] / "model.safetensors", pinhole)
    assert other.query_dense_projector is other.key_dense_projector is None


def test_the_largest_alone_and_then_all(undisturbed, trainer_of, tmp_path):
    config = TrainerConfig(epochs=2, lr=0.05, largest_only_epochs=1)
    reports, passes = [], []
    trainer = trainer_of(tmp_path, "simclr", config)
    trainer.on_epoch = reports.append
    query = trainer.method.query
    query.register_forward_hook(lambda *_: passes.append(query.supernet.active))
    trainer.fit()
    largest = trainer.method.space.largest
    assert passes[:3] == [largest] * 3
    assert passes[3::3] == [largest] * 3
    assert len(passes) == 12
    assert [(r.loss_smallest is None, r.loss_random is None) for r in reports] == [
        (True, True),
        (False, False),
    ]


def test_weights_of_losses_and_distillation_change_what_is_learnt(trainer_of, tmp_path):
    ends = []
    for number, options in enumerate(
        ({}, {"distill": 1.0}, {"loss_weights": (1.0, 0.5, 1.0)}, {"loss_weights": (1.0, 1.0, 0.5)})
    ):
        config = TrainerConfig(epochs=1, lr=0.05, **options)
        weights = trainer_of(tmp_path / str(number), "moco_v2", config).fit()
        ends.append(weights.query["conv1.weight"].clone())
    assert not any(torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


def test_methods_are_told_how_much_of_the_training_came_before(trainer_of, tmp_path):
    trainer = trainer_of(tmp_path, "byol")
    momentum_at, told = trainer.method.momentum_at, []
    trainer.method.momentum_at = lambda share: told.append(share) or momentum_at(share)
    trainer.fit()
    assert told == pytest.approx([step / 6 for step in range(6)])


class TestFaithful:
    def test_every_subnet_fills_the_queue(self, trainer_of, tmp_path):
        config = TrainerConfig(epochs=1, lr=0.05, faithful=True)
        trainer = trainer_of(tmp_path, "moco_v2", config)
        put, filled = trainer.method.queue.put, []
        trainer.method.queue.put = lambda keys: (filled.append(len(keys)), put(keys))
        trainer.fit()
        assert filled == [32] * 9

    @pytest.mark.parametrize(
        ("name", "options", "found"),
        [
            ("byol", {}, "BYOL, distill 0.0"),
            ("moco_v2", {"distill": 0.1}, "MoCoV2, distill 0.1"),
            ("moco_v2", {"loss_weights": (1.0, 1.0, 0.5)}, r"loss_weights \(1.0, 1.0, 0.5\)"),
        ],
    )
    def test_for_moco_v2_without_additions_only(self, trainer_of, tmp_path, name, options, found):
        config = TrainerConfig(faithful=True, **options)
        with pytest.raises(TrainingError, match=f"for pretrain.faithful; found: .*{found}"):
            trainer_of(tmp_path, name, config)


def test_lars_leaves_biases_undecayed(trainer_of, tmp_path):
    trainer = trainer_of(tmp_path, "byol", TrainerConfig(epochs=1, optimizer="lars", lr=1.0))
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    method = trainer.method
    expected = [*method.query.parameters(), *method.predictor.parameters()]
    assert trained == {id(p) for p in expected}
    before = [p.detach().clone() for p in expected]
    trainer.fit()
    assert type(trainer.optimizer).__name__ == "LARS"
    assert all(p.isfinite().all() for p in expected)
    moved = [not torch.equal(p, former) for p, former in zip(expected, before, strict=True)]
    assert sum(moved) > 0.9 * len(moved)
