"""What all networks of a task share: images, recipe, whole networks, figures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from devices.files import write_json
from edgesearch.data.image_pool import ImagePool
from edgesearch.errors import CheckpointError
from edgesearch.events import Event, Report, silent
from edgesearch.inputs import read_json
from edgesearch.processes import distributed
from edgesearch.space import Architecture, SearchSpace
from edgesearch.space.public_weights import Normalisation
from edgesearch.supernet.calibrate import recalibrate
from edgesearch.supernet.weights import SupernetWeights, save_tensors
from edgesearch.tasks.backbone import Backbone
from edgesearch.tasks.finetuner import Finetuner, evaluate
from edgesearch.tasks.known_tasks import TASKS, TaskRecord
from edgesearch.tasks.model import TaskModel, add_head
from edgesearch.tasks.settings import FinetuneSettings
from edgesearch.tasks.task import Task
from edgesearch.tasks.task_images import FittedImages, SampleLoader, TaskImages, share_out
from edgesearch.training.randomness import seeded
from edgesearch.training.torch_device import torch_device

WEIGHTS = "model.safetensors"
FIGURES = "figures.json"


@dataclass(frozen=True)
class Finetuned:
    """A trained network and what it reaches on the test images.

    Attributes:
        figures: In 0 … 1 by name; the first decides.
        params: Learnable parameters, head included.
        epoch: The epoch whose weights were kept; None for the last.
        duration_s: Wall time of the training and its evaluation, without interruptions.
    """

    name: str
    figures: dict[str, float]
    params: int
    train_images: int
    validation_images: int
    test_images: int
    epochs: int
    epoch: int | None
    duration_s: float


@dataclass(frozen=True)
class Finetuning:
    """Makes and trains whole networks for a task, all under the same recipe.

    A network is made by `subnet` (or by `whole` from any `Backbone`, such as `baseline(…)`),
    trained by `train`, which resumes in its folder, and judged by `figures`. A trained one is read
    back by `load`. All of them are `TaskModel`s.

    Attributes:
        settings: The section `finetune`; its task is given.
        space: The search space.
        pool: The images with labels.
        seed: Seed of shares, heads and trainings.
        weights: The trained supernet; None with random weights.
        calibration_images: Images for the recalibration of extracted subnets.
        calibration_batch: Images per pass of it.
        normalisation: Mean and deviation of pixels that the networks expect; the pool's if None.
    """

    settings: FinetuneSettings
    space: SearchSpace
    pool: ImagePool
    seed: int
    weights: SupernetWeights | None
    calibration_images: int
    calibration_batch: int
    report: Report = silent
    normalisation: Normalisation | None = None
    _fitted: dict[tuple[str, int], FittedImages] = field(default_factory=dict)

    @property
    def record(self) -> TaskRecord:
        """The task's entry in the list."""
        return TASKS[str(self.settings.task)]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.pool.class_names

    @cached_property
    def images(self) -> TaskImages:
        """The images with labels, shared out.

        Raises:
            DataError: There are no labels for the task.
        """
        train, test = self.pool.annotated(self.record.annotations)
        settings = self.settings
        return share_out(train, test, settings.label_share, settings.validation, self.seed)

    def task(self, resolution: int) -> Task:
        """The task, for networks of a resolution."""
        preprocess = self.pool.preprocess(resolution, self.settings.fit)
        if self.normalisation is not None:
            mean, std = self.normalisation
            preprocess = replace(preprocess, mean=mean, std=std)
        return self.record.task_class()(self.settings, self.classes, preprocess, self.seed)

    def subnet(self, architecture: Architecture) -> TaskModel:
        """A subnet, recalibrated, with a head that is not trained yet."""
        dense = self.record.head_class(self.settings.head).dense
        space, resolution = self.space, architecture.resolution
        if self.weights is None:
            with seeded(self.seed):
                network = space.make_network(space.blocks(architecture))
        else:
            network = self.weights.subnet(architecture)
            recalibrate(network, self.calibration(resolution), self.calibration_batch)
        return self.whole(Backbone.of(network, resolution, space.in_channels, dense))

    def whole(self, backbone: Backbone) -> TaskModel:
        """A backbone with the configured head, which is not trained yet."""
        model = add_head(
            self.record.name, self.settings.head, backbone, len(self.classes), self.seed
        )
        self.task(model.resolution).configure(model.head)
        return model

    def train(
        self,
        model: TaskModel,
        folder: Path,
        name: str,
        identity: Mapping[str, Any],
        teacher: TaskModel | None = None,
    ) -> Finetuned:
        """Train a network, which keeps the weights, and judge it on the test images.

        Writes model.safetensors and figures.json, besides what a `Finetuner` writes; a finished
        training is read.

        Args:
            model: The network; gets the trained weights.
            folder: Its own folder.
            name: In progress and results.
            identity: Plain values that determine the network and its training.
            teacher: A trained network to imitate, with `settings.distill`.

        Raises:
            Interrupted: The user stopped it; the same call resumes.
            CheckpointError: The folder holds another training.
        """
        about = json.loads(json.dumps(dict(identity)))
        found = distributed.of_first(self.finished(folder, about))
        if found is not None:
            self.read_weights(model, folder)
            return replace(found, name=name)
        task, images, settings = self.task(model.resolution), self.images, self.settings
        loader = SampleLoader(images.train, task, settings.batch_size, self.seed, settings.workers)
        validation = None if images.validation is None else FittedImages(images.validation, task)
        tuner = Finetuner(
            model,
            task,
            loader,
            validation,
            folder,
            identity=about,
            report=lambda event: self.report(replace(event, message=f"{name}: {event.message}")),
            teacher=teacher,
        )
        tuner.fit()
        finetuned = None
        if distributed.rank() == 0:
            finetuned = Finetuned(
                name,
                self.figures(model),
                sum(weight.numel() for weight in model.parameters()),
                len(images.train),
                len(images.validation or ()),
                len(images.test),
                tuner.position.epoch,
                tuner.position.best_epoch or None,
                tuner.seconds,
            )
            self._save_weights(model, folder / WEIGHTS)
            write_json(folder / FIGURES, {"identity": about, **asdict(finetuned)})
        finetuned = distributed.of_first(finetuned)
        assert finetuned is not None
        return finetuned

    def time_steps(self, model: TaskModel, most: int, most_s: float) -> tuple[int, float]:
        """Steps of an epoch, and seconds of one; see `Finetuner.time_steps`."""
        settings, task = self.settings, self.task(model.resolution)
        loader = SampleLoader(
            self.images.train, task, settings.batch_size, self.seed, settings.workers
        )
        with tempfile.TemporaryDirectory() as folder:  # nothing is written there
            tuner = Finetuner(
                model, task, loader, None, Path(folder), identity={}, report=silent, teacher=None
            )
            return loader.steps_per_epoch, tuner.time_steps(most, most_s)

    def figures(self, model: TaskModel) -> dict[str, float]:
        """The figures of a network on the test images; it stays on its device."""
        resolution = model.resolution
        device = next(model.parameters()).device
        return evaluate(model, self.task(resolution), self.fitted("test", resolution), device)

    def fitted(self, part: str, resolution: int) -> FittedImages:
        """The images of a part ("train", "validation" or "test") as inputs; those of the latest."""
        key = part, resolution
        if key not in self._fitted:
            for former in [each for each in self._fitted if each[0] == part]:
                del self._fitted[former]
            images = getattr(self.images, part)
            self._fitted[key] = FittedImages(images, self.task(resolution))
        return self._fitted[key]

    def load(self, folder: Path, architecture: Architecture) -> TaskModel:
        """A trained network of this task, from its folder, in evaluation mode.

        Raises:
            CheckpointError: There is none of this architecture and head.
        """
        dense = self.record.head_class(self.settings.head).dense
        with torch.random.fork_rng(devices=[]):
            network = self.space.make_network(self.space.blocks(architecture))
            resolution, channels = architecture.resolution, self.space.in_channels
            model = self.whole(Backbone.of(network, resolution, channels, dense))
        self.read_weights(model, folder)
        return model.eval()

    def calibration(self, resolution: int) -> torch.Tensor:
        """Training images as inputs (N, C, R, R), for normalisation statistics."""
        task, train = self.task(resolution), self.images.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.seed))
        chosen = train.subset(order[: self.calibration_images].tolist())
        pixels = task.preprocess.normalise(FittedImages(chosen, task).images)
        return pixels

    def finished(self, folder: Path, identity: Mapping[str, Any]) -> Finetuned | None:
        """The result of a training in a folder; None if it is not finished, or another one."""
        if not (folder / FIGURES).exists() or not (folder / WEIGHTS).exists():
            return None
        values = read_json(folder / FIGURES, folder.parent.name)
        if values.pop("identity", None) != json.loads(json.dumps(dict(identity))):
            return None
        return Finetuned(**values)

    def _save_weights(self, model: TaskModel, path: Path) -> None:
        about = {
            "task": self.record.name,
            "head": self.settings.head,
            "classes": list(self.classes),
            "preprocess": self.task(model.resolution).preprocess.to_dict(),
        }
        state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
        save_tensors(path, state, about)

    def read_weights(self, model: TaskModel, folder: Path) -> None:
        """Give a network the weights that were trained in a folder.

        Raises:
            CheckpointError: There are none, or they are those of another network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / WEIGHTS
        try:
            model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                f"a network fine-tuned for {self.record.name} at {path}",
                str(error).splitlines()[0],
                # what is missing is made again in any case
                f"{'R' if not path.exists() else 'Move it away, and r'}un `edgesearch "
                f"{folder.parent.name}` with the same configuration, then this command again.",
            ) from error
        model.to(torch_device(self.settings.device, "finetune")).eval()

    def tell(self) -> None:
        """Report what the user should know about the labels."""
        for notice in self.images.notices:
            self.report(Event("finetune", notice))
