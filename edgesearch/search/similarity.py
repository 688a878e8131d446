"""Similarity of two networks on the same images, one value per image.

All but `cosine_of_embeddings` compare relations between images, or between places of an image, so
they accept features of different lengths and are invariant to rotation and scale.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

BANK = 256
"""Maximum number of images that each image is related to."""
BLOCK_BYTES = 32 << 20
"""Block size for similarities of places."""
PENALTY = 0.3
"""Penalty of `regression_on_features`: a share of the mean squared length of centred features."""
TINY = 1e-12
"""Mean squared length of centred features below which they count as equal for all images."""
SMALLEST_LENGTH = 1e-4
"""Lower bound on row lengths; shorter rows (collapsed maps) get a similarity near 0."""
_Rows = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Compares rows (…, R, P) of two matrices; the third masks entries with 0."""


def cosine_of_embeddings(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Cosine between the embeddings of each image, (N, D) each: (N,), in -1 … 1.

    Source: DATA (CVPR 2022), section 3.3, the score for classification.
    """
    return F.cosine_similarity(candidate, reference, dim=1).clamp(-1, 1)  # rounding


def relation_of_images(
    candidate: torch.Tensor, reference: torch.Tensor, bank: int = BANK
) -> torch.Tensor:
    """Correlation between the two networks' similarities of each image to the first `bank` others.

    Features (N, D) and (N, D') of the same images to (N,), in -1 … 1. DATA compares these
    similarities by a cross-entropy, which needs a temperature and has no bound.
    """
    bank = min(bank, len(candidate))
    others = 1 - torch.eye(len(candidate), bank, device=candidate.device)
    first, second = (F.normalize(x, dim=1) for x in (candidate, reference))
    return _correlation(first @ first[:bank].T, second @ second[:bank].T, others)


def kernel_alignment(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Linear centred kernel alignment (CKA), decomposed over images.

    Features (N, D) and (N, D') of the same images to (N,), with mean in 0 … 1; zeros if a network
    maps all images to the same features. The mean over images is the CKA. The value of an image is
    the CKA plus the image's influence on it (infinitesimal jackknife), so that intervals are valid
    as for a mean.

    Source: Kornblith et al., "Similarity of neural network representations revisited" (ICML 2019),
    section 3; Efron, "The jackknife, the bootstrap and other resampling plans" (1982), chapter 6.
    """
    x, y = (
        features.double() - features.double().mean(dim=0) for features in (candidate, reference)
    )
    between, of_x, of_y = (_row_products(a, b) for a, b in ((x, y), (x, x), (y, y)))
    scale = (of_x.sum() * of_y.sum()).sqrt()
    if scale <= 0 or between.sum() <= 0:
        return x.new_zeros(len(x)).float()
    shares = [len(x) * part / part.sum() for part in (between, of_x, of_y)]
    return (between.sum() / scale * (1 + 2 * shares[0] - shares[1] - shares[2])).float()


def regression_on_features(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """How well a linear layer on the candidate's features predicts the reference's.

    Features (N, D) and (N, D') of the same images to (N,), in -1 … 1: the cosine between the
    reference's features of an image, of length 1 and less their mean over images, and their ridge
    regression on the candidate's of all other images; zeros if a network maps all images to the
    same features. As a linear probe, it does not depend on how the candidate's features are
    rotated and scaled; other than `kernel_alignment`, it sees features of small variance.

    Source: Hastie et al., "The elements of statistical learning" (2nd edition, 2009), equation
    7.64 for leaving out; Alain and Bengio, "Understanding intermediate layers using linear
    classifier probes" (2016).
    """
    y = F.normalize(reference.double(), dim=1)
    x, y = (features - features.mean(dim=0) for features in (candidate.double(), y))
    if min(z.square().sum() for z in (x, y)) <= TINY * len(x):
        return reference.new_zeros(len(x)).float()
    penalty = PENALTY * x.square().sum() / len(x)
    if len(x) <= x.shape[1]:
        gram = x @ x.T
        gram.diagonal().add_(penalty)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
        left, kept = penalty * (inverse @ y), penalty * inverse.diagonal()
    else:
        gram = x.T @ x
        gram.diagonal().add_(penalty)
        projected = x @ torch.cholesky_inverse(torch.linalg.cholesky(gram))
        left, kept = y - projected @ (x.T @ y), 1 - (projected * x).sum(dim=1)
    others = (kept - 1 / len(x)).clamp_min(1e-9)  # the mean is fitted, too
    predicted = y - left / others[:, None]
    return F.cosine_similarity(predicted, y, dim=1).clamp(-1, 1).float()


def _row_products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Row sums of XXᵀ ∘ YYᵀ, computed with the smaller matrices: (N,)."""
    if len(x) <= max(x.shape[1], y.shape[1]):
        return ((x @ x.T) * (y @ y.T)).sum(dim=1)
    return (x @ (x.T @ y) * y).sum(dim=1)


def self_similarity(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Cosine between rows of the two self-similarity matrices between places.

    Maps (N, C, H, W), resized to the grid of the reference (N, C', H', W'), to (N,), in -1 … 1.

    Source: DATA (CVPR 2022), section 3.3, the score for detection and segmentation. There the rows
    are not normalised (`released_similarity`), which rewards constant maps.
    """
    return _over_places(candidate, reference, _cosine)


def relation_of_places(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """As `self_similarity`, with centred rows and without the diagonal; 0 for a constant map."""
    return _over_places(candidate, reference, _correlation)


def released_similarity(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """As `self_similarity`, but the mean product of entries, as in DATA's released code."""
    return _over_places(candidate, reference, lambda x, y, _: (x * y).mean(dim=-1))


def alignment_of_places(candidate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Linear CKA between the places of each image: (N,), in 0 … 1, maps as in `self_similarity`."""
    pairs = zip(*_places(candidate, reference), strict=True)
    return torch.stack([kernel_alignment(x.T, y.T).mean() for x, y in pairs])


def _places(candidate: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both maps on the grid of the reference: (N, C, H'·W') and (N, C', H'·W')."""
    grid = reference.shape[2:]
    if candidate.shape[2:] != grid:
        candidate = F.interpolate(candidate, grid, mode="bilinear")
    return candidate.flatten(2), reference.flatten(2)


def _over_places(candidate: torch.Tensor, reference: torch.Tensor, compare: _Rows) -> torch.Tensor:
    """Compare rows of the similarity matrices between places, block by block; mean per image."""
    first, second = (F.normalize(x, dim=1) for x in _places(candidate, reference))
    places = first.shape[2]
    rows = min(places, max(1, BLOCK_BYTES // (4 * places)))
    images = max(1, BLOCK_BYTES // (4 * places * rows))
    found = []
    for x, y in zip(first.split(images), second.split(images), strict=True):
        total = x.new_zeros(len(x))
        for start in range(0, places, rows):
            part = slice(start, start + rows)
            of_x, of_y = (z[:, :, part].transpose(1, 2) @ z for z in (x, y))
            others = torch.ones_like(of_x[0])
            others.diagonal(start).zero_()
            total += compare(of_x, of_y, others).sum(dim=1)
        found.append(total / places)
    return torch.cat(found)


def _cosine(x: torch.Tensor, y: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    lengths = [z.norm(dim=-1).clamp_min(SMALLEST_LENGTH) for z in (x, y)]
    return (x * y).sum(dim=-1) / (lengths[0] * lengths[1])


def _correlation(x: torch.Tensor, y: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Correlation of rows over the entries where `others` is 1; 0 where there is none."""
    count = others.sum(dim=-1, keepdim=True).clamp_min(1)
    x, y = ((z - (z * others).sum(dim=-1, keepdim=True) / count) * others for z in (x, y))
    return _cosine(x, y, others)
