"""The monitor of a training, also where the training leaves it little memory."""

import pytest
import torch

from edgesearch.data.image_pool import ImagePool
from edgesearch.data.settings import DataSettings
from edgesearch.errors import TrainingError
from edgesearch.families import load_space
from edgesearch.pretrain.encoder import states_of
from edgesearch.pretrain.knn_monitor import KnnMonitor
from edgesearch.pretrain.method import make_method
from edgesearch.supernet.weights import SupernetWeights

SPACE = load_space("resnet_tiny", in_channels=1, resolutions=[16])


@pytest.fixture(scope="module")
def weights():
    method = make_method("moco_v2", SPACE, queue_size=8, projector_hidden_dim=8, projector_dim=4)
    states = states_of(method.query)
    return SupernetWeights(SPACE, *states[:2], *states[:2])


@pytest.fixture(scope="module")
def pool():
    return ImagePool(DataSettings(source="digits"), 1, 0)


@pytest.fixture
def passes(monkeypatch):
    """Sizes of the passes; none of more than `most` images is possible."""

    class Passes(list):
        most = 256

    passes = Passes()
    forward = torch.nn.Module.__call__

    def counted(module, images, *args):
        if images.shape[-1] == 16 and images.shape[1] == 1:
            passes.append(len(images))
            if len(images) > passes.most:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried\nto")
        return forward(module, images, *args)

    monkeypatch.setattr(torch.nn.Module, "__call__", counted)
    return passes


def monitor_of(pool, told):
    return KnnMonitor(pool, 5, torch.device("cpu"), told.append)


def test_with_enough_memory_nothing_is_told(pool, weights, passes):
    told = []
    found = monitor_of(pool, told)(weights)
    assert set(found) == {"knn_largest", "knn_smallest"}
    assert all(0.3 < accuracy < 1 for accuracy in found.values())
    assert told == []
    assert max(passes) == 256


def test_batches_that_do_not_fit_are_halved_and_that_is_told(pool, weights, passes):
    passes.most, told = 70, []
    monitor = monitor_of(pool, told)
    found = monitor(weights)
    assert [message[:80] for message in told] == [
        "the device has no memory for the kNN monitor's batches of 128: it continues with 64"[:80],
        "the device has no memory for the kNN monitor's batches of 64: it continues with 32"[:80],
    ]
    assert monitor.judge.batch_size == 32
    passes.most = 256
    assert found == monitor(weights)  # with the same batches from then on
    assert len(told) == 2


def test_not_even_two_images_fit(pool, weights, passes):
    passes.most, told = 1, []
    message = "memory for the kNN monitor on the device, .*; found: CUDA out of memory. Tried, with"
    with pytest.raises(TrainingError, match=message) as error:
        monitor_of(pool, told)(weights)
    assert "batches of 2 images. Set pretrain.knn_every_epochs=0" in str(error.value)
    assert told[-1].endswith("batches of 4: it continues with 2")
