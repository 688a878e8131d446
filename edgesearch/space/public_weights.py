"""Public weights of a trained network, in the names of our modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from edgesearch.space.network import Network
from edgesearch.space.search_space import SearchSpace

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each input channel, for pixel values in 0 … 1."""
IMAGENET: dict[int, Normalisation] = {
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    1: ((0.449,), (0.226,)),
}
"""Those of ImageNet in colour and in grey, by the number of channels."""


@dataclass(frozen=True)
class PublicWeights:
    """A trained backbone that was read from a file.

    Attributes:
        kind: Where files of this form come from.
        space: A space with this network as its only architecture.
        state: Its tensors, by the names of our modules.
        mean: Mean of each input channel in its training, for pixel values in 0 … 1.
        std: Standard deviation of each input channel, likewise.
    """

    kind: str
    space: SearchSpace
    state: Mapping[str, torch.Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def network(self) -> Network:
        """The static network with these weights, in evaluation mode."""
        with torch.device("meta"):  # skips initialisation
            network = self.space.make_network(self.space.blocks(self.space.largest))
        network.to_empty(device="cpu")
        network.load_state_dict(dict(self.state))
        return network.eval()
