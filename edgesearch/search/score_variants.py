"""All scores of a subnet side by side, for comparison with agreement."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from edgesearch.search.agreement import Agreement, run_network
from edgesearch.search.beginnings import Outputs
from edgesearch.search.similarity import (
    cosine_of_embeddings,
    kernel_alignment,
    regression_on_features,
    relation_of_images,
    relation_of_places,
    released_similarity,
    self_similarity,
)
from edgesearch.space import Architecture

TEMPERATURE = 0.2
"""Temperature of the contrastive loss, as in MoCo v2."""
DENSE = {
    "self-similarity": self_similarity,
    "relation of places": relation_of_places,
    "self-similarity, as released": released_similarity,
}
RELATIONS = {
    "relation": relation_of_images,
    "cka": kernel_alignment,
    "regression": regression_on_features,
}
NAMES = (
    "cosine",
    *RELATIONS,
    *DENSE,
    "contrastive loss",
    "cosine, not recalibrated",
)


class ScoreVariants:
    """Computes alternative scores of a subnet on the images of an `Agreement`.

    "contrastive loss" is the negative cross-entropy of matching an image's embedding to the
    reference's, among all images, without augmentation. "not recalibrated" uses the shared
    normalisation statistics. Scores of places compare the last stage. All but "… to the NAME" have
    the supernet's own reference.

    Args:
        agreement: Has the images.
        others: Further references by name: networks to be calibrated, or a row for each image.
    """

    def __init__(
        self, agreement: Agreement, others: Mapping[str, nn.Sequential | torch.Tensor] | None = None
    ) -> None:
        self.agreement = agreement
        resolution = agreement.weights.space.largest.resolution
        self._reference = self._outputs(agreement.own_reference(), resolution)
        self._others = {
            name: other
            if isinstance(other, torch.Tensor)
            else self._outputs(agreement.calibrated(other, resolution), resolution, False).features
            for name, other in (others or {}).items()
        }

    def __call__(self, architecture: Architecture, network: nn.Sequential) -> dict[str, float]:
        """Scores by name, higher is better, of a calibrated subnet with its projector."""
        resolution = architecture.resolution
        outputs, reference = self._outputs(network, resolution), self._reference
        plain = self.agreement.weights.embedder(architecture).to(memory_format=torch.channels_last)
        shared = self._outputs(plain, resolution, with_maps=False)
        found = {
            "cosine": cosine_of_embeddings(outputs.embeddings, reference.embeddings),
            **{
                name: compare(outputs.features, reference.features)
                for name, compare in RELATIONS.items()
            },
            **{
                name: compare(outputs.maps[0], reference.maps[0]) for name, compare in DENSE.items()
            },
            "contrastive loss": -contrastive_loss(outputs.embeddings, reference.embeddings),
            "cosine, not recalibrated": cosine_of_embeddings(
                shared.embeddings, reference.embeddings
            ),
            **{
                f"{score} to the {name}": compare(outputs.features, other)
                for name, other in self._others.items()
                for score, compare in RELATIONS.items()
            },
        }
        return {name: float(values.double().mean()) for name, values in found.items()}

    def _outputs(self, network: nn.Sequential, resolution: int, with_maps: bool = True) -> Outputs:
        """Maps of the last stage, features and embeddings of all images."""
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
    """Cross-entropy of matching each image to its reference among all images: (N, D) each to (N,).

    Source: van den Oord et al., "Representation learning with contrastive predictive coding"
    (2018), equation 4.
    """
    logits = candidate @ reference.T / TEMPERATURE
    return F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")
