"""Agreement: the score of a subnet, by default its similarity to the largest network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import DataError, SearchError
from edgesearch.events import Event, Report, silent
from edgesearch.search.beginnings import Member, Outputs, families, run_family, share_beginning
from edgesearch.search.label_votes import label_score
from edgesearch.search.settings import FOREIGN, SearchSettings
from edgesearch.search.similarity import (
    alignment_of_places,
    cosine_of_embeddings,
    kernel_alignment,
    regression_on_features,
    relation_of_images,
    relation_of_places,
    self_similarity,
)
from edgesearch.space import Architecture, SearchSpace
from edgesearch.space.network import Network
from edgesearch.supernet.calibrate import recalibrate_all
from edgesearch.supernet.weights import SupernetWeights

ImagesAt = Callable[[int, int, int], torch.Tensor]
"""(resolution R, first, last) to normalised images (last - first, C, R, R); deterministic."""
CalibrationAt = Callable[[int], torch.Tensor]
"""A resolution R to normalised images (N, C, R, R); deterministic."""
Compare = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

KEPT_BYTES = 1 << 30
"""Cache size for reference outputs; the rest is computed for each candidate."""
KEPT_STATISTICS = 256
"""Candidates whose normalisation statistics are cached, for scoring on more images."""
FEWEST_IMAGES = 4
"""Minimum for correlations between images and for intervals."""
SMALLEST_GRID = 2
"""Minimum height and width of maps, for similarities between places."""


GLOBAL_SCORES: dict[str, tuple[str, Compare]] = {
    "cosine": ("embeddings", cosine_of_embeddings),
    "relation": ("features", relation_of_images),
    "cka": ("features", kernel_alignment),
    "regression": ("features", regression_on_features),
    "labels": ("features", label_score),
}
"""For classification: the compared outputs, and the comparison."""
DENSE_SCORES: dict[str, Compare] = {
    "cosine": self_similarity,
    "relation": relation_of_places,
    "cka": alignment_of_places,
}
"""For detection and segmentation: the comparison of maps."""


@torch.inference_mode()
def run_network(network: nn.Sequential, images: torch.Tensor) -> Outputs:
    """Outputs of a backbone followed by a projector, with the maps of all stages."""
    stages = range(1, len(_backbone(network).stage_channels) + 1)
    (outputs,) = run_family([network], [0], images, stages)
    return outputs


class Agreement:
    """Similarity of a subnet to a reference, by default the mean cosine of embeddings.

    Each candidate gets its own normalisation statistics, from the same images and batches as in
    evaluation and export. Reference outputs are computed once.

    Source: DATA (CVPR 2022), section 3.3; see `edgesearch.search.similarity` for each score.

    Args:
        weights: The supernet.
        images_at: The images that candidates are scored on.
        calibration_at: The images for recalibration.
        batch_size: Images per forward pass.
        images: Number of images that candidates are scored on.
        options: The section `search`.
        given: The reference, if it is not of the supernet: a network, or one row for
            each image (embeddings of a teacher, or labels). A network is recalibrated.

    Raises:
        SearchError: A stage does not exist, or its maps are too small.
    """

    def __init__(
        self,
        weights: SupernetWeights,
        images_at: ImagesAt,
        calibration_at: CalibrationAt,
        batch_size: int,
        images: int,
        options: SearchSettings = SearchSettings(),  # noqa: B008 (frozen)
        given: nn.Sequential | torch.Tensor | None = None,
    ) -> None:
        self.weights = weights
        self.images_at = images_at
        self.calibration_at = calibration_at
        self.batch_size = batch_size
        self.images = images
        self.options = options
        self.stages = stages_compared(weights.space, options)
        self._resolution = weights.space.largest.resolution
        self._rows = given if isinstance(given, torch.Tensor) else None
        self.reference_network: nn.Sequential | None = None
        if self._rows is None:
            self.reference_network = (
                self.calibrated(given, self._resolution)
                if isinstance(given, nn.Sequential)
                else self.own_reference()
            )
        self._kept: dict[int, tuple[torch.Tensor, ...]] = {}
        self._room = KEPT_BYTES
        self._statistics: dict[Architecture, dict[str, torch.Tensor]] = {}

    def own_reference(self) -> nn.Sequential:
        """The calibrated reference of the supernet itself: largest subnet or key encoder."""
        weights, largest = self.weights, self.options.reference == "largest"
        network = weights.embedder(weights.space.largest) if largest else weights.reference()
        return self.calibrated(network, self._resolution)

    @property
    def is_foreign(self) -> bool:
        """Whether the reference is none of the supernet's own networks."""
        return self.reference_network is None or self.options.reference in FOREIGN

    @property
    def refers_to_a_subnet(self) -> bool:
        """Whether the reference is the largest subnet itself, not a moving average of it."""
        if self.is_foreign:
            return False
        return self.options.reference == "largest" or self.weights.key is self.weights.query

    def __call__(self, architecture: Architecture) -> float:
        """The agreement of an architecture, in -1 … 1."""
        return float(self.scores(architecture).mean())

    def of_network(self, network: nn.Sequential, resolution: int) -> float:
        """The agreement of any backbone with a projector; recalibrates it."""
        return float(self.scores_of(self.calibrated(network, resolution), resolution).mean())

    def scores(self, architecture: Architecture, images: int | None = None) -> torch.Tensor:
        """Scores of each image, (images,) float64; their mean is the agreement."""
        return next(self.all_scores([architecture], images))

    def all_scores(
        self, architectures: Sequence[Architecture], images: int | None = None
    ) -> Iterator[torch.Tensor]:
        """Scores of several architectures, in their order.

        Architectures with a common prefix share its computation; the scores do not change.
        """
        found: dict[Architecture, torch.Tensor] = {}
        alone = self.weights.keeps_statistics
        left = iter(families(self.weights.space, architectures, self.batch_size, alone))
        for architecture in architectures:
            while architecture not in found:
                found.update(self._scores_of_family(next(left), images))
            yield found[architecture]

    def _scores_of_family(
        self, family: Sequence[Member], images: int | None
    ) -> dict[Architecture, torch.Tensor]:
        shared = [member.shared for member in family]
        resolution = family[0].architecture.resolution
        figures = self._figures(self._networks(family), shared, resolution, images)
        return {each.architecture: one for each, one in zip(family, figures, strict=True)}

    def subnet(self, architecture: Architecture) -> nn.Sequential:
        """A calibrated subnet with its projector; uses cached statistics."""
        (network,) = self._networks([Member(architecture, 0)])
        return network

    def _networks(self, family: Sequence[Member]) -> list[nn.Sequential]:
        """The calibrated subnets of a family with their projectors, with shared prefixes."""
        networks: list[nn.Sequential] = []
        for member in family:
            network = self.weights.embedder(member.architecture)
            if networks:
                share_beginning(_backbone(network), _backbone(networks[-1]), member.shared)
            networks.append(network.to(memory_format=torch.channels_last))
        known = [self._statistics.get(member.architecture) for member in family]
        if None in known:
            resolution = family[0].architecture.resolution
            self._calibrate(networks, [member.shared for member in family], resolution)
            for member, network in zip(family, networks, strict=True):
                self._keep_statistics(member.architecture, network)
        else:
            for statistics, network in zip(known, networks, strict=True):
                assert statistics is not None
                network.load_state_dict(statistics, strict=False)
        return networks

    def _keep_statistics(self, architecture: Architecture, network: nn.Sequential) -> None:
        self._statistics[architecture] = {name: b.clone() for name, b in network.named_buffers()}
        if len(self._statistics) > KEPT_STATISTICS:
            del self._statistics[next(iter(self._statistics))]

    def _calibrate(
        self, networks: Sequence[nn.Sequential], shared: Sequence[int], resolution: int
    ) -> None:
        def run(images: torch.Tensor) -> None:
            for _ in run_family(networks, shared, images):
                pass

        recalibrate_all(networks, self.calibration_at(resolution), run, self.batch_size)

    def calibrated(self, network: nn.Sequential, resolution: int) -> nn.Sequential:
        """Recalibrate a network."""
        network = network.to(memory_format=torch.channels_last)
        self._calibrate([network], [0], resolution)
        return network.eval()

    def scores_of(
        self, network: nn.Sequential, resolution: int, images: int | None = None
    ) -> torch.Tensor:
        """Scores of each image for a calibrated network."""
        (figures,) = self._figures([network], [0], resolution, images)
        return figures

    @torch.inference_mode()
    def _figures(
        self,
        networks: Sequence[nn.Sequential],
        shared: Sequence[int],
        resolution: int,
        images: int | None,
    ) -> list[torch.Tensor]:
        """Scores of each image for networks that share prefixes."""
        whole = self.options.task == "classification"
        parts: list[list[torch.Tensor]] = [[] for _ in networks]
        references: list[torch.Tensor] = []
        for first, last in self.batches(self.images if images is None else images):
            batch = self.images_at(resolution, first, last)
            reference = self._of_reference(first, last)
            if whole:
                references.append(reference[0])
            outputs_of_all = run_family(networks, shared, batch, self.stages)
            for own, outputs in zip(parts, outputs_of_all, strict=True):
                kept = self._keep(outputs)
                own.append(kept[0] if whole else self._compare_maps(kept, reference))
        if not whole:
            return [torch.cat(own).double() for own in parts]
        compare = GLOBAL_SCORES[self.options.score][1]
        reference_of_all = torch.cat(references)
        return [compare(torch.cat(own), reference_of_all).double() for own in parts]

    def batches(self, images: int) -> list[tuple[int, int]]:
        """First and last image of each forward pass."""
        starts = range(0, images, self.batch_size)
        return [(first, min(first + self.batch_size, images)) for first in starts]

    def _keep(self, outputs: Outputs) -> tuple[torch.Tensor, ...]:
        """The outputs to compare."""
        if self.options.task == "classification":
            return (getattr(outputs, GLOBAL_SCORES[self.options.score][0]),)
        return outputs.maps

    def _compare_maps(
        self, candidate: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        compare = DENSE_SCORES[self.options.score]
        of_stages = [compare(*maps) for maps in zip(candidate, reference, strict=True)]
        return torch.stack(of_stages).mean(dim=0)

    def _of_reference(self, first: int, last: int) -> tuple[torch.Tensor, ...]:
        """Outputs of the reference for some images, cached."""
        if self.reference_network is None:
            assert self._rows is not None
            return (self._rows[first:last],)
        kept = self._kept.get(first)
        if kept is None or len(kept[0]) < last - first:
            images = self.images_at(self._resolution, first, last)
            (outputs,) = run_family([self.reference_network], [0], images, self.stages)
            kept = self._keep(outputs)
            size = sum(tensor.nbytes for tensor in kept)
            self._room += sum(tensor.nbytes for tensor in self._kept.pop(first, ()))
            if size <= self._room:
                self._room -= size
                self._kept[first] = kept
        return tuple(tensor[: last - first] for tensor in kept)


def make_agreement(
    weights: SupernetWeights,
    pool: ImagePool,
    settings: SearchSettings,
    report: Report = silent,
    given: nn.Sequential | torch.Tensor | None = None,
) -> Agreement:
    """The score, on images after the calibration images if there are enough, or on labelled ones.

    Args:
        weights: The supernet.
        pool: The images.
        settings: The section `search`.
        report: Receives notices.
        given: The reference, if it is not of the supernet; see `Agreement`.

    Raises:
        DataError: There are too few images.
        SearchError: The supernet has no such stage, or its maps are too small.
    """
    calibration = settings.calibration_images
    if settings.score == "labels":
        count = labelled_images_of_score(pool, settings)
        given = pool.labels_of_sample(weights.space.largest.resolution, count)
        images_at: ImagesAt = lambda resolution, start, end: pool.sample_labelled(  # noqa: E731
            resolution, count, (start, end)
        )
    else:
        first, count = images_of_score(len(pool.train), settings, report)
        images_at = lambda resolution, start, end: pool.sample(  # noqa: E731
            resolution, first, count, part=(start, end)
        )
    return Agreement(
        weights,
        images_at,
        calibration_at=lambda resolution: pool.sample(resolution, 0, calibration),
        batch_size=settings.batch_size,
        images=count,
        options=settings,
        given=given,
    )


def labelled_images_of_score(pool: ImagePool, settings: SearchSettings) -> int:
    """Number of labelled training images that candidates are scored on.

    Raises:
        DataError: There are too few, or fewer than two classes.
    """
    labels = pool.readable_labels
    available, wanted = len(labels), settings.label_images
    if available < FEWEST_IMAGES or len(labels.unique()) < 2:
        raise DataError(
            f"{FEWEST_IMAGES} or more training images of two classes or more, for search.score "
            "labels",
            f"{available} of {len(labels.unique())} class(es): {pool.contents}",
            "Put the images of each class into a folder of its own, or set another search.score.",
        )
    if wanted is not None and wanted > available:
        raise DataError(
            f"search.label_images of at most {available}, the training images with a class",
            str(wanted),
            "Lower it, or leave it out to use all.",
        )
    return min(available, settings.images) if wanted is None else wanted


def images_of_score(
    available: int, settings: SearchSettings, report: Report = silent
) -> tuple[int, int]:
    """Offset and number of the images that candidates are scored on, of those available.

    Raises:
        DataError: There are too few images.
    """
    calibration, count = settings.calibration_images, settings.images
    if min(available, count) < FEWEST_IMAGES:
        raise DataError(
            f"at least {FEWEST_IMAGES} images to score candidates on",
            f"{available} images, and search.images {count}",
            "Add images to the folder, or raise search.images.",
        )
    first = calibration
    if calibration + count > available:
        first, count = 0, min(count, available)
        few = (
            f"{available} images are fewer than search.calibration_images + search.images "
            f"({calibration + settings.images}): {count} images are used for both calibration and "
            "scoring; add images, or lower both options"
        )
        report(Event("search", few))
    return first, count


def _backbone(network: nn.Sequential) -> Network:
    backbone = network[0]
    assert isinstance(backbone, Network)
    return backbone


def stages_compared(space: SearchSpace, options: SearchSettings) -> tuple[int, ...]:
    """The stages whose maps are compared.

    Raises:
        SearchError: A stage does not exist, or its maps are too small.
    """
    count = len(space.stages)
    if options.task == "classification":
        return ()
    stages = tuple(options.stages or (count,))
    for stage in stages:
        if not 1 <= stage <= count:
            raise SearchError(
                f"stages 1 to {count} of the space {space.name!r} in search.stages",
                f"stage {stage}",
                "Choose existing stages, or null for the last one.",
            )
        last = space.grid(stage)
        if last < SMALLEST_GRID:
            raise SearchError(
                f"maps of at least {SMALLEST_GRID} × {SMALLEST_GRID} places, for search.task "
                f"{options.task}",
                f"{last} × {last} after stage {stage} of {space.name!r} at "
                f"{space.largest.resolution} pixels",
                "Choose earlier stages (search.stages), larger images or the task classification.",
            )
    return tuple(stages)
