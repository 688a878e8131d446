"""Public weights of a trained network, in the names of our modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from edgesearch.errors import SpaceError
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

    def in_grey(self) -> PublicWeights:
        """The same for grey images: the first convolution summed over red, green and blue.

        Scales and shifts of the normalisations of pixels are taken along, so that a grey image
        gives what it gives in three equal channels, but for the outermost pixels: the zeros around
        them stand for the mean of one channel instead of three.

        Raises:
            SpaceError: The network does not take three channels.
        """
        if self.space.in_channels != 3:
            raise SpaceError(
                "public weights for images in colour, to sum them for grey ones",
                f"{self.space.in_channels} input channels",
                "Leave pretrain.init_grey out.",
            )
        (mean,), (std,) = IMAGENET[1]
        if len({*zip(self.mean, self.std, strict=True)}) == 1:
            mean, std = self.mean[0], self.std[0]
        state = dict(self.state)
        conv = next(name for name, tensor in state.items() if tensor.ndim == 4)
        behind = next(name for name in state if name.endswith("running_mean"))
        by_channel = state[conv] / torch.tensor(self.std).view(3, 1, 1)
        state[conv] = std * by_channel.sum(dim=1, keepdim=True)
        shifts = mean - torch.tensor(self.mean).view(3, 1, 1)
        state[behind] = state[behind] - (by_channel * shifts).sum(dim=(1, 2, 3))
        space = replace(self.space, in_channels=1)
        return replace(self, space=space, state=state, mean=(mean,), std=(std,))

    def network(self) -> Network:
        """The static network with these weights, in evaluation mode."""
        with torch.device("meta"):  # skips initialisation
            network = self.space.make_network(self.space.blocks(self.space.largest))
        network.to_empty(device="cpu")
        network.load_state_dict(dict(self.state))
        return network.eval()
