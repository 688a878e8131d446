"""What is said of a training that goes on all the same."""

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edgesearch import stages as workflow
from edgesearch.families import load_space
from edgesearch.pretrain.byol import BYOL
from edgesearch.pretrain.key_queue import KeyQueue
from edgesearch.pretrain.methods import METHODS

SPACE = load_space("resnet_tiny", in_channels=1, stage_depths=[[1], [1], [1]])
HEADS = {"projector_hidden_dim": 16, "projector_dim": 8, "projector_bn": True}
PREDICTOR = {"predictor_hidden_dim": 8}


class Remembering(BYOL):
    """A method that nobody has heard of, with a queue."""

    def __init__(self, space, *, negatives, **options):
        super().__init__(space, **options)
        self.remembered = KeyQueue(8, 512, negatives=negatives)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What a short training says."""
    monkeypatch.setitem(METHODS, "remembering", Remembering)

    def told(method, init=None, **options):
        events = []
        workflow.pretrain(
            space=SPACE,
            images=workflow.DataSettings("digits"),
            output_dir=tmp_path / method,
            trainer=workflow.TrainerConfig(epochs=1, lr=0.01, monitor_every_epochs=0),
            views=workflow.ViewOptions(workflow.Augmentation(flip_probability=0.0), True, 256),
            method=method,
            method_options={**HEADS, **options},
            threads=1,
            init=init,
            report=events.append,
        )
        return "\n".join(event.message for event in events)

    return told


@pytest.mark.parametrize("negatives", [True, False])
def test_a_large_queue_of_negatives_of_any_method(told, negatives):
    said = told("remembering", negatives=negatives, **PREDICTOR)
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
