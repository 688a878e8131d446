"""Training and test splits of images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from edgesearch.data.contents import Contents, Header, LeftOut, readable_name, tally
from edgesearch.data.find_files import natural
from edgesearch.data.image_set import ImageSet
from edgesearch.data.layout import TEST, TRAIN, VALID, Layout
from edgesearch.errors import DataError, UserNotice

LOOKED_AT = 32
"""Images whose sizes are looked at."""
Reasons = list[tuple[str, str]]
"""Reason and name of each file or folder that is not used."""


@dataclass(frozen=True)
class ImageSplits:
    """The images of a source.

    Attributes:
        labelled: Reference images of classifiers, if not `train`.
        test_from: Where the test images come from.
        no_labels: Why training or test images have no labels; empty if both have.
        left_out: What is not used, by reason.
        colour: Whether the images are stored in colour, if they cannot be asked any more.
    """

    train: ImageSet
    test: ImageSet | None = None
    labelled: ImageSet | None = None
    test_from: str = ""
    no_labels: str = ""
    left_out: tuple[LeftOut, ...] = ()
    colour: bool | None = None


def divide(
    images: ImageSet, names: Sequence[str], layout: Layout, left_out: Reasons
) -> ImageSplits:
    """The splits and labels of a layout.

    Test images need a class of the training images. Training images need none, as pre-training uses
    no labels.

    Args:
        images: All images, without labels.
        names: Their names below the root.
        layout: Their splits and class folders.
        left_out: What has been left out already.

    Raises:
        DataError: Some test images have classes that the training images lack, or two folders have
            the same name in another spelling.
    """
    train, left_out = layout.splits[TRAIN], list(left_out)
    left_out += [("outside of the training and test folders", names[i]) for i in layout.unused]
    classes = _class_names(train.values(), images)
    tests = [kind for kind in (TEST, VALID) if kind in layout.splits]
    chosen, no_labels = next(iter(tests), None), ""
    if len(classes) < 2:
        classes = {}
        no_labels = _why_no_labels(train, names)
    else:
        known = {kind: _known(layout, kind, classes, images) for kind in tests}
        chosen = next((kind for kind in tests if known[kind]), None)
        for kind in tests:
            without = set(layout.splits[kind]) - set(known[kind])
            reason = f"in {layout.names.get(kind, kind)} without a class"
            left_out += [(reason, names[i]) for i in sorted(without)]
            layout.splits[kind] = known[kind]
    for kind in tests:
        if kind != chosen:
            reason = f"in {layout.names.get(kind, kind)}, which is not used"
            left_out += [(reason, names[i]) for i in layout.splits[kind]]
    return ImageSplits(
        _with_labels(images, train, classes),
        None if chosen is None else _with_labels(images, layout.splits[chosen], classes),
        test_from="" if chosen is None else f"in {layout.names.get(chosen, chosen)}",
        no_labels=no_labels,
        left_out=tally(left_out),
    )


def _class_names(folders: Iterable[str | None], images: ImageSet) -> dict[str, str]:
    """Folders in natural order, with the names of their classes."""
    found = sorted(
        {each for each in folders if each is not None}, key=lambda each: natural((each,))
    )
    classes = {folder: readable_name(folder) for folder in found}
    if len(set(classes.values())) < len(classes):
        twice = [name for name in classes.values() if list(classes.values()).count(name) > 1]
        raise DataError(
            f"class folders of different names in {images.origin.absolute()}",
            f"several that are written {twice[0]!r}, in other bytes",
            "Rename one of them, or move its images into the other.",
        )
    by_case: dict[str, str] = {}
    for name in classes.values():
        same = by_case.setdefault(name.casefold(), name)
        if same != name:
            warnings.warn(
                f"the class folders {same!r} and {name!r} differ in case only and count as two "
                "classes: move the images of one into the other if they are one",
                UserNotice,
                stacklevel=2,
            )
    return classes


def _known(
    layout: Layout, kind: str, classes: Mapping[str, str], images: ImageSet
) -> dict[int, str | None]:
    """The test images that have a class; a single folder of another name is none.

    Raises:
        DataError: There are other classes than in the training images.
    """
    part, known = layout.splits[kind], set(classes.values())
    found = {readable_name(each) for each in part.values() if each is not None}
    if len(found) == 1 and not found & known:
        return {}
    if unknown := sorted(found - known, key=lambda each: natural((each,))):
        tests, train = (layout.names.get(each, each) for each in (kind, TRAIN))
        by_case = {name.casefold(): name for name in known}
        named = [
            f"{each} ({by_case[each.casefold()]} in {train})"
            if each.casefold() in by_case
            else each
            for each in unknown[:5]
        ]
        raise DataError(
            f"the classes of {tests} among those of {train} in {images.origin.absolute()}",
            f"{len(unknown)} other(s): {', '.join(named)}",
            "Give both splits the same class folders.",
        )
    return {index: each for index, each in part.items() if each is not None}


def _why_no_labels(train: Mapping[int, str | None], names: Sequence[str]) -> str:
    folders = {each for each in train.values() if each is not None}
    if folders:
        return f"only one class folder with training images, {readable_name(folders.pop())}"
    above = {names[index].rpartition("/")[0] for index in train}
    if len(above) == 1 and (folder := above.pop()):
        return f"all training images are in one folder, {folder}/"
    return f"training images in no class folder, such as {names[next(iter(train))]}"


def _with_labels(
    images: ImageSet, part: Mapping[int, str | None], classes: Mapping[str, str]
) -> ImageSet:
    chosen = images.subset(list(part))
    if not classes:
        return chosen
    number = {name: index for index, name in enumerate(classes.values())}
    labels = [-1 if each is None else number[readable_name(each)] for each in part.values()]
    return replace(chosen, labels=torch.tensor(labels), class_names=tuple(classes.values()))


def hold_out(splits: ImageSplits, share: float, seed: int) -> ImageSplits:
    """Split off the same share of each class (or of images with annotations), never a whole one."""
    images = splits.train
    if images.labels is None and images.targets is None:
        return splits
    generator = torch.Generator().manual_seed(seed)
    test: set[int] = set()
    if images.labels is None:
        groups = [torch.arange(len(images))]
    else:
        numbers = range(len(images.class_names))
        groups = [(images.labels == label).nonzero().flatten() for label in numbers]
    for members in groups:
        count = min(round(len(members) * share), len(members) - 1)
        chosen = torch.randperm(len(members), generator=generator)[: max(0, count)]
        test.update(members[chosen].tolist())
    if not test:
        return replace(splits, no_labels=f"data.holdout={share} gives none")
    train = [index for index in range(len(images)) if index not in test]
    return replace(
        splits,
        train=images.subset(train),
        test=images.subset(sorted(test)),
        test_from="held out of train",
    )


def describe(splits: ImageSplits) -> Contents:
    """What the splits hold; a sample of their images is looked at."""
    train, test = splits.train, splits.test
    with_labels = splits.labelled or train
    first = train.without_class[0] if train.without_class else None
    headers = _sample(train)
    sizes = sorted(_sizes(headers), key=lambda size: size[0] * size[1])
    colours = {None if each is None else each.colour for each in headers} - {None}
    return Contents(
        classes=with_labels.class_names,
        no_labels=splits.no_labels,
        train=len(train),
        unlabelled=len(train.without_class),
        first_unlabelled="" if first is None else readable_name(train.name(first)),
        test=0 if test is None else len(test),
        test_from=splits.test_from,
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        colour=any(colours) if colours else splits.colour,
        left_out=splits.left_out,
    )


def sample_sizes(images: ImageSet) -> list[tuple[int, int]]:
    """Width and height in pixels of a sample, as far as they are known."""
    return _sizes(_sample(images))


def _sample(images: ImageSet) -> list[Header | None]:
    step = max(1, len(images) // LOOKED_AT)
    return [images.header(index) for index in range(0, len(images), step)]


def _sizes(headers: Iterable[Header | None]) -> list[tuple[int, int]]:
    return [(each.width, each.height) for each in headers if each is not None]
