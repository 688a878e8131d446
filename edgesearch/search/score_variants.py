"""All scores of a subnet side by side, to find out which of them mean anything."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.search.agreement import Agreement, run_network
from edgesearch.search.beginnings import Outputs
from edgesearch.search.similarity import (
    cosine_of_embeddings,
    kernel_alignment,
    relation_of_images,
    relation_of_places,
    released_similarity,
    self_similarity,
)
from edgesearch.space import Architecture

TEMPERATURE = 0.2
"""Of the contrastive loss: that of MoCo v2."""
DENSE = {
    "self-similarity": self_similarity,
    "relation of places": relation_of_places,
    "self-similarity, as released": released_similarity,
}
NAMES = (
    "cosine",
    "relation",
    "cka",
    *DENSE,
    "contrastive loss",
    "cosine, not recalibrated",
)


class ScoreVariants:
    """Computes what there is to compare agreement with, from one pass over its images.

    "contrastive loss" is the negative cross-entropy of telling the reference's embedding of an
    image from those of the other images, without augmentation; "not recalibrated" uses the
    statistics that all subnets share. Scores of places compare the last stage.

    Args:
        agreement: Its images, its reference and its calibration are used.
    """

    def __init__(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self._reference = self._outputs(
            agreement.reference_network, agreement.weights.space.largest.resolution
        )

    def __call__(self, architecture: Architecture, network: nn.Sequential) -> dict[str, float]:
        """The variants by name, higher being better.

        Args:
            architecture: The subnet.
            network: The same with its projector, calibrated.
        """
        resolution = architecture.resolution
        outputs, reference = self._outputs(network, resolution), self._reference
        plain = self.agreement.weights.embedder(architecture).to(memory_format=torch.channels_last)
        shared = self._outputs(plain, resolution, with_maps=False)
        found = {
            "cosine": cosine_of_embeddings(outputs.embeddings, reference.embeddings),
            "relation": relation_of_images(outputs.features, reference.features),
            "cka": kernel_alignment(outputs.features, reference.features),
            **{
                name: compare(outputs.maps[0], reference.maps[0]) for name, compare in DENSE.items()
            },
            "contrastive loss": -contrastive_loss(outputs.embeddings, reference.embeddings),
            "cosine, not recalibrated": cosine_of_embeddings(
                shared.embeddings, reference.embeddings
            ),
        }
        return {name: float(values.double().mean()) for name, values in found.items()}

    def _outputs(self, network: nn.Sequential, resolution: int, with_maps: bool = True) -> Outputs:
        """Those of all images: the maps of the last stage, features and embeddings."""
        agreement = self.agreement
        maps: list[torch.Tensor] = []
        features, embeddings = [], []
        for first, last in agreement.batches(agreement.images):
            outputs = run_network(network, agreement.images_at(resolution, first, last))
            maps += outputs.maps[-1:] if with_maps else ()
            features.append(outputs.features)
            embeddings.append(outputs.embeddings)
        of_all = (torch.cat(maps),) if with_maps else ()
        return Outputs(of_all, torch.cat(features), torch.cat(embeddings))


def contrastive_loss(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of finding each image's reference among those of all images, (N,).

    Source: van den Oord et al., "Representation learning with contrastive predictive coding"
    (2018), equation 4.

    Args:
        candidate: (N, D), of length 1.
        reference: (N, D), of length 1.
    """
    logits = candidate @ reference.T / TEMPERATURE
    return F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")
