"""Given options that have no effect are told in one line each, by the mark in their settings."""

import re
import warnings
from typing import get_args

import pytest

from edgesearch.config import Config, load_config, shipped_configs
from edgesearch.errors import UserNotice
from edgesearch.settings import AppliesTo, Settings

AUGMENTATION = "pretrain.augmentation"
JITTER = f"{AUGMENTATION}.jitter"
UNTRAINED = ["pretrain.epochs=0", "pretrain.init=runs/other", "pretrain.warmup_epochs=0"]
TAUGHT = [
    *("pretrain.method=distillation", "pretrain.queue_size=", "pretrain.temperature="),
    *("pretrain.ema_momentum=", "pretrain.projector_hidden_dim=", "pretrain.projector_bn=true"),
    "pretrain.teacher={onnx: teacher.onnx, bgr: true}",
]
ONE_CHANNEL = ["space.in_channels=1"]
TRAINING = {
    "batch_size": 128,
    "optimizer": "adamw",
    "lr": 0.5,
    "weight_decay": 0.5,
    "warmup_epochs": 1,
    "clip_gradient": 1.0,
    "queue_size": 512,
    "temperature": 0.3,
    "ema_momentum": 0.9,
    "largest_only_epochs": 1,
    "faithful": "true",
    "augmentation": "{flip_probability: 0.1}",
    "precision": "bf16",
    "memory_format": "channels_first",
    "accumulation": 2,
    "bn_group_size": 64,
    "compile": "true",
    "knn_every_epochs": 5,
    "checkpoint_minutes": 1.0,
}
"""Options that have an effect in a training only, and a value."""
OF_METHODS = {
    "teacher_temperature": ("ressl", 0.03),
    "predictor_hidden_dim": ("byol", 64),
    "dense_weight": ("densecl", 0.4),
}
"""The same of other methods than MoCo v2, with a method that has it."""

FOLDER = ["data.source=folder", "data.root=images"]

CASES = {
    "search.reference": (
        ["search.reference=largest", "search.score=labels"],
        ["search.score=cosine"],
    ),
    "search.label_images": (["search.label_images=50"], ["search.score=labels"]),
    "search.population": (["search.population=9"], ["search.strategy=evolution"]),
    "device.python": (["device.python=python3.11"], ["device.host=board"]),
    "device.ssh_config": (["device.ssh_config=mine"], ["device.host=board"]),
    "device.threads": (["device.name=rtx-pc", "device.threads=4"], ["device.name=local-cpu"]),
    "data.allow_missing_classes": (
        ["data.source=digits", "data.root=", "data.allow_missing_classes=true"],
        ["data.source=folder", "data.root=images"],
    ),
    "data.labels": (["data.labels=voc", "data.source=digits", "data.root="], FOLDER),
    "data.annotations": (["data.annotations=boxes"], ["data.labels=voc"]),
    "data.classes": (["data.classes=[cat]"], ["data.labels=voc"]),
    "finetune": (["finetune.epochs=3"], ["finetune.task=detection"]),
    "compare": (["compare.seeds=2"], ["finetune.task=classification"]),
    "finetune.patience": (
        ["finetune.task=detection", "finetune.patience=3"],
        ["finetune.validation=0.1"],
    ),
    "finetune.momentum": (
        ["finetune.task=detection", "finetune.momentum=0.8"],
        ["finetune.optimizer=sgd"],
    ),
    "finetune.label_smoothing": (
        ["finetune.task=detection", "finetune.label_smoothing=0.2"],
        ["finetune.task=classification"],
    ),
    **{
        f"finetune.{name}": (
            ["finetune.task=detection", "finetune.probe=true", f"finetune.{name}={value}"],
            ["finetune.probe=false"],
        )
        for name, value in {"backbone_lr": 0.5, "lr_decay": 0.5, "norms": "frozen"}.items()
    },
    "export.max_task_loss": (["export.max_task_loss=0.1"], ["finetune.task=detection"]),
    "export.max_replacements": (
        ["export.max_replacements=2", "search.budgets.latency_of_largest="],
        ["search.budgets.latency_p95_ms=9"],
    ),
    "export.quantization": (["export.quantization=entropy"], ["device.precision=int8"]),
    "pretrain.workers": (["pretrain.workers=3"], ["pretrain.augmentation.batched=false"]),
    "pretrain.knn_k": (
        ["pretrain.knn_k=5", "pretrain.knn_every_epochs=0"],
        ["pretrain.knn_every_epochs=5"],
    ),
    "pretrain.momentum": (
        ["pretrain.momentum=0.8", "pretrain.optimizer=adamw"],
        ["pretrain.optimizer=lars"],
    ),
    "pretrain.projector_bn": (TAUGHT, ["pretrain.projector_hidden_dim=64"]),
    **{
        f"pretrain.teacher.{name}": (
            [*TAUGHT, f"pretrain.teacher={{onnx: a.onnx, {name}: {value}}}"],
            ["pretrain.teacher={onnx: a.onnx, loss: queue, " + f"{name}: {value}}}"],
        )
        for name, value in (("queue_size", 512), ("temperatures", "[0.1, 0.1]"))
    },
    "pretrain.teacher.loss": (
        [*TAUGHT, *UNTRAINED, "pretrain.teacher={onnx: a.onnx, loss: queue}"],
        ["pretrain.epochs=20"],
    ),
    "pretrain.teacher.dense": (
        [*TAUGHT, *UNTRAINED, "pretrain.teacher={onnx: a.onnx, dense: true}"],
        ["pretrain.epochs=20"],
    ),
    "pretrain.teacher.grid": (
        [*TAUGHT, "pretrain.teacher={onnx: a.onnx, grid: 3}"],
        ["pretrain.teacher={onnx: a.onnx, grid: 3, dense: true}"],
    ),
    "pretrain.teacher_weight": (
        [*TAUGHT, "pretrain.teacher_weight=0.5"],
        ["pretrain.method=moco_v2"],
    ),
    "pretrain.teacher.bgr": ([*TAUGHT, *ONE_CHANNEL], ["space.in_channels=3"]),
    "pretrain.init_licence": (["pretrain.init_licence=MIT"], ["pretrain.init=weights.pth"]),
    "pretrain.init_grey": (
        ["pretrain.init=weights.pth", "pretrain.init_grey=true"],
        ["space.in_channels=1"],
    ),
    "pretrain.random_subnets": (
        ["pretrain.random_subnets=2", "pretrain.loss_weights=[1, 1, 0]"],
        ["pretrain.loss_weights=[1, 1, 0.5]"],
    ),
    "pretrain.loss_weights[2]": (
        ["pretrain.loss_weights=[1, 1, 2]", "pretrain.random_subnets=0"],
        ["pretrain.random_subnets=1"],
    ),
    "pretrain.distill": (
        ["pretrain.distill=1.0", "pretrain.loss_weights=[1, 0, 1]", "pretrain.random_subnets=0"],
        ["pretrain.random_subnets=1"],
    ),
    **{
        f"pretrain.{name}": (
            [*UNTRAINED, f"pretrain.{name}={value}"],
            ["pretrain.epochs=20", "pretrain.init="],
        )
        for name, value in TRAINING.items()
    },
    **{
        f"pretrain.{name}": (
            [*UNTRAINED, f"pretrain.{name}={value}"],
            ["pretrain.epochs=20", "pretrain.init="],
        )
        for name, (_, value) in OF_METHODS.items()
    },
    **{
        f"{JITTER}.{name}": (
            [f"{JITTER}.{name}=0.3", f"{JITTER}.probability=0"],
            [f"{JITTER}.probability=0.5"],
        )
        for name in ("brightness", "contrast", "saturation", "hue")
    },
    f"{JITTER}.probability": (
        [
            *(f"{JITTER}.probability=0.5", f"{JITTER}.brightness=0", f"{JITTER}.contrast=0"),
            *(f"{JITTER}.saturation=0.4", f"{JITTER}.hue=0.1", *ONE_CHANNEL),
        ],
        ["space.in_channels=3"],
    ),
    f"{AUGMENTATION}.grayscale_probability": (
        [f"{AUGMENTATION}.grayscale_probability=0.5", *ONE_CHANNEL],
        ["space.in_channels=3"],
    ),
}
"""By option: overrides under which it has no effect, and those under which it has one."""
SECOND_REASONS = {
    f"{JITTER}.saturation": ONE_CHANNEL,
    f"{JITTER}.hue": ONE_CHANNEL,
    "pretrain.distill": UNTRAINED,
    "pretrain.workers": UNTRAINED,
    "pretrain.teacher.grid": UNTRAINED,
    "pretrain.teacher.queue_size": UNTRAINED,
    "pretrain.teacher.temperatures": UNTRAINED,
    "pretrain.teacher_weight": UNTRAINED,
    "pretrain.knn_k": UNTRAINED,
    "pretrain.momentum": UNTRAINED,
    "pretrain.random_subnets": UNTRAINED,
}
"""Options that a second condition leaves without effect, and overrides under which it does."""


def told(*overrides, config="cifar10"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        root = [] if config == "quickstart" else ["data.root=images"]  # the digits have none
        load_config(str(config), [*root, *overrides])
    return [str(each.message) for each in caught if issubclass(each.category, UserNotice)]


def named(*overrides, config="cifar10"):
    """The options that are said to have no effect."""
    lines = [line for line in told(*overrides, config=config) if " no effect unless " in line]
    paths = [path for line in lines for path in re.split(r" (?:has|have) no ", line)[0].split(", ")]
    assert len(paths) == len(set(paths))
    return paths


def marked(schema=Config, path=""):
    for name, field in schema.model_fields.items():
        if any(isinstance(mark, AppliesTo) for mark in field.metadata):
            yield path + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Settings):
                yield from marked(kind, f"{path}{name}.")


def test_all_are_tried():
    assert sorted(set(marked())) == sorted(name.partition("[")[0] for name in CASES)


@pytest.mark.parametrize("option", CASES)
def test_it_is_told_unless_it_applies(option):
    without, applies = CASES[option]
    method, _ = OF_METHODS.get(option.rpartition(".")[2], ("", 0))
    config = f"cifar10_{method}" if method else "cifar10"
    assert option in named(*without, config=config)
    assert option not in named(*without, *applies, config=config)


@pytest.mark.parametrize("option", SECOND_REASONS)
def test_of_several_conditions_each_counts(option):
    without, applies = CASES[option]
    assert option in named(*without, *applies, *SECOND_REASONS[option])


def test_what_has_the_same_reason_is_one_line():
    lines = told(*UNTRAINED, config="photos_mobile_v4")
    assert [line.count("pretrain.") for line in lines] == [7]
    assert lines[0].endswith(
        ", pretrain.augmentation have no effect unless pretrain.epochs is above 0"
    )


@pytest.mark.parametrize("method", ["byol", "simclr", "distillation"])
def test_what_a_method_brings_along_is_not_the_users(method, tmp_path):
    file = tmp_path / "plain.yaml"
    file.write_text("{output_dir: out, space: {name: resnet_small}, data: {root: images}}")
    given = [f"pretrain.method={method}", f"{JITTER}.probability=0", f"{JITTER}.hue=0.3"]
    teacher = ["pretrain.teacher={onnx: teacher.onnx}"] if method == "distillation" else []
    assert named(*given, *teacher, config=file) == [f"{JITTER}.hue"]


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configurations_say_nothing_without_effect_but_their_own(name):
    lines = told(config=name)
    assert lines == []


def test_a_default_or_an_option_that_is_off_needs_no_word():
    assert told("pretrain.workers=2", "export.quantization=minmax", "search.population=") == []
