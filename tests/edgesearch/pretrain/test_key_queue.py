"""The ring of keys."""

import pytest
import torch

from edgesearch.errors import TrainingError
from edgesearch.pretrain.key_queue import KeyQueue


def test_starts_with_keys_of_length_1():
    torch.testing.assert_close(KeyQueue(6, 12).keys.norm(dim=0), torch.ones(12))


def test_goes_round():
    queue = KeyQueue(6, 12)
    first = queue.keys.clone()
    batches = [torch.randn(4, 6) for _ in range(4)]
    queue.put(batches[0])
    assert torch.equal(queue.keys, torch.cat([batches[0].T, first[:, 4:]], dim=1))
    for batch in batches[1:]:
        queue.put(batch)
    assert torch.equal(queue.keys, torch.cat([batches[3], *batches[1:3]]).T)
    assert int(queue.position) == 4


def test_a_queue_of_broken_batches_is_refused():
    with pytest.raises(TrainingError, match="a multiple of the batch of 4 images; found: .* 10"):
        KeyQueue(6, 10).put(torch.zeros(4, 6))
