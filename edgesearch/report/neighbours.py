"""The training images that a winner finds most similar to a few held-out images."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from edgesearch.data.preprocess import Preprocess
from edgesearch.evaluate.features import compute_features
from edgesearch.export.load_subnet import load_subnet
from edgesearch.run.context import RunContext

QUERIES = 8
SHOWN = 6
"""Neighbours of each."""
CANDIDATES = (200, 2000)
"""Fewest and most training images that are searched."""
MOST_MACS = 2e10
"""Multiply-accumulates spent on them, within these bounds."""
SIDE = 64
"""Pixels of a shown image at most."""
SMALL = 33
"""Sides below this are stored without loss: JPEG blurs them, and gains nothing."""


@dataclass(frozen=True)
class Picture:
    """An image as shown: a data URI, and its class or "" if unknown."""

    uri: str
    label: str


@dataclass(frozen=True)
class Query:
    """A held-out image with the most similar training images, the most similar first.

    Attributes:
        by_features: By the winner's features.
        by_pixels: By raw pixels.
    """

    image: Picture
    by_features: tuple[Picture, ...]
    by_pixels: tuple[Picture, ...]


@dataclass(frozen=True)
class Neighbours:
    """Queries, and how many training images were searched for each.

    Attributes:
        same_class: Shares of neighbours of the query's class, by features and by pixels, over
            `tried` held-out images; None without labels.
    """

    queries: tuple[Query, ...]
    candidates: int
    same_class: tuple[float, float] | None
    tried: int


def find_neighbours(run: RunContext, folder: Path) -> Neighbours:
    """The neighbours of a seeded sample of held-out images, in the winner's exported weights.

    Raises:
        UserError: There are no images, or the weights do not fit.
    """
    subnet = load_subnet(folder, "features")
    preprocess = Preprocess(**subnet.about["preprocess"])
    space = run.space
    macs = space.macs(space.from_choices(subnet.about["architecture"]))
    most = min(CANDIDATES[1], max(CANDIDATES[0], int(MOST_MACS / macs)))
    pool = run.open_images()
    train, test = pool.examples(preprocess, most, most // 4)
    pixels = nn.Sequential(nn.AdaptiveAvgPool2d(min(preprocess.resolution, 32)), nn.Flatten())
    nearest = {}
    for name, network in (("features", subnet), ("pixels", pixels)):
        found = [
            F.normalize(compute_features(network, each.images, prepare=preprocess.normalise), dim=1)
            for each in (train, test)
        ]
        nearest[name] = (found[1] @ found[0].T).topk(min(SHOWN, len(train.images)), dim=1).indices
    labels, names = (train.labels, test.labels), pool.class_names
    same_class = None
    if names and labels[0] is not None and labels[1] is not None:
        same_class = (
            _share(labels[0][nearest["features"]], labels[1]),
            _share(labels[0][nearest["pixels"]], labels[1]),
        )

    def picture(split: int, index: int) -> Picture:
        images, own = (train, test)[split].images, labels[split]
        label = -1 if own is None or not names else int(own[index])
        return Picture(_data_uri(images[index]), names[label] if label >= 0 else "")

    queries = tuple(
        Query(
            image=picture(1, index),
            by_features=tuple(picture(0, int(each)) for each in nearest["features"][index]),
            by_pixels=tuple(picture(0, int(each)) for each in nearest["pixels"][index]),
        )
        for index in _one_of_each(labels[1], len(test.images))
    )
    return Neighbours(queries, len(train.images), same_class, len(test.images))


def _share(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Share of neighbours (N, K) with the class of their query (N,)."""
    return float((found == wanted[:, None]).float().mean())


def _one_of_each(labels: torch.Tensor | None, count: int) -> list[int]:
    """Queries in the order of the sample: the first of each class, then the first others."""
    own = [0] * count if labels is None else [int(label) for label in labels]
    firsts = {label: place for place, label in reversed([*enumerate(own)])}
    order = sorted(range(count), key=lambda place: (firsts[own[place]] != place, place))
    return sorted(order[:QUERIES], key=lambda place: (own[place], place))


def _data_uri(image: torch.Tensor) -> str:
    """An image (C, H, W) uint8 as a data URI."""
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((SIDE, SIDE))
    kind, options = ("png", {}) if max(picture.size) < SMALL else ("jpeg", {"quality": 80})
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
