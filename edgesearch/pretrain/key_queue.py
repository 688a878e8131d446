"""The queue of keys of the last batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.errors import TrainingError
from edgesearch.processes.distributed import gather_rows


class KeyQueue(nn.Module):
    """A ring buffer of keys: the newest batch replaces the oldest.

    Source: He et al., "Momentum contrast" (CVPR 2020), section 3.2.

    Args:
        dim: Length of a key.
        size: Capacity, a multiple of the batch size. Initial keys come from torch's random state.
        negatives: Whether the keys are negatives, so that keys of the same image mislead.
    """

    keys: torch.Tensor
    """(dim, size), columns of length 1."""
    position: torch.Tensor

    def __init__(self, dim: int, size: int, *, negatives: bool = True) -> None:
        super().__init__()
        self.negatives = negatives
        self.register_buffer("keys", F.normalize(torch.randn(dim, size), dim=0))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @property
    def size(self) -> int:
        """Number of keys."""
        return self.keys.shape[1]

    @torch.no_grad()
    def put(self, keys: torch.Tensor) -> None:
        """Enqueue the keys of the global batch, given this process's (N, dim).

        Raises:
            TrainingError: The queue does not hold a whole number of batches.
        """
        keys = gather_rows(keys)
        if self.size % len(keys):
            raise TrainingError(
                f"a queue_size that is a multiple of the batch of {len(keys)} images",
                f"queue_size {self.size}",
                "Change pretrain.queue_size or pretrain.batch_size.",
            )
        position, count = int(self.position), len(keys)
        self.keys[:, position : position + count] = keys.T
        self.position.fill_((position + count) % self.size)


def queues_of(method: nn.Module) -> list[KeyQueue]:
    """The queues of a method, all of the same size."""
    return [module for module in method.modules() if isinstance(module, KeyQueue)]
