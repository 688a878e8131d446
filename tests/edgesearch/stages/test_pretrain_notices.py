"""What is said of a training that goes on all the same."""

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgesearch import stages as workflow
from edgesearch.pretrain.byol import BYOL
from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.pretrain.recipes import RECIPES, Recipe
from edgesearch.pretrain.settings import PretrainSettings
from edgesearch.space import load_space

SPACE = load_space("resnet_tiny", in_channels=1, stage_depths=[[1], [1], [1]])
HEADS = {"projector_hidden_dim": 16, "projector_dim": 8, "projector_bn": True}
PREDICTOR = {"predictor_hidden_dim": 8}


class Remembering(BYOL):
    """A method that nobody has heard of, with a queue."""

    def build(self, dim, *, dense_weight, **options):
        super().build(dim, **options)
        self.remembered = KeyQueue(dim, 512, negatives=dense_weight > 0)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What a short training says."""
    byol = RECIPES["byol"]
    options = {**byol.options, "dense_weight": 1.0}
    recipe = Recipe(f"{__name__}:Remembering", byol.training, options)
    monkeypatch.setitem(RECIPES, "remembering", recipe)

    def told(method, init=None, **options):
        events = []
        workflow.pretrain(
            space=SPACE,
            images=workflow.ImageSource("digits"),
            output_dir=tmp_path / method,
            settings=PretrainSettings(
                method=method,
                epochs=1,
                lr=0.01,
                knn_every_epochs=0,
                threads=1,
                init=init,
                tensorboard=False,
                augmentation={"batched": True, "flip_probability": 0.0},
                **HEADS,
                **options,
            ),
            report=events.append,
        )
        return "\n".join(event.message for event in events)

    return told


@pytest.mark.parametrize("negatives", [True, False])
def test_a_large_queue_of_negatives_of_any_method(told, negatives):
    said = told("remembering", dense_weight=float(negatives), **PREDICTOR)
    assert ("a queue of 512 is more than a quarter of the 1438 images" in said) == negatives


def test_weights_of_another_method_to_start_from(told, tmp_path):
    told("byol", **PREDICTOR)
    weights = tmp_path / "byol/supernet/model.safetensors"
    expected = "the weights to start from were trained by byol: simclr takes over the backbones"
    assert expected in told("simclr", init=weights)


def test_weights_of_the_same_method_to_start_from(told, tmp_path):
    told("simclr")
    (tmp_path / "simclr").rename(tmp_path / "first")
    assert "to start from" not in told("simclr", init=tmp_path / "first")


def test_weights_that_do_not_say_their_method(told, tmp_path):
    told("byol", **PREDICTOR)
    weights = tmp_path / "byol/supernet/model.safetensors"
    with safe_open(weights, "pt") as file:
        about = file.metadata()["edgesearch"]
    assert '"method": "byol"' in about
    older = tmp_path / "older.safetensors"
    save_file(load_file(weights), older, {"edgesearch": about.replace(', "method": "byol"', "")})
    assert "to start from" not in told("simclr", init=older)
