"""Every key of a configuration reaches an argument of the workflow."""

from dataclasses import asdict, is_dataclass

import pytest

from edgesearch.cli import stages
from edgesearch.config import load_config

ARGUMENTS = (
    stages.profile_arguments,
    stages.validate_arguments,
    stages.pretrain_arguments,
    stages.search_arguments,
    stages.export_arguments,
    stages.summary_arguments,
    stages.evaluate_arguments,
    stages.rank_arguments,
)


def arguments_of(*overrides):
    config = load_config("cifar10", ["data.root=images", *overrides])
    return [plain(make(config)) for make in ARGUMENTS]


def plain(value):
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=elsewhere",
        "seed=7",
        "space.stem_widths=[24]",
        "device.threads=2",
        "device.batch=2",
        "device.provider=openvino",
        "device.precision=int8",
        "device.host=board",
        "device.hosts=[a,b]",
        "device.host=board device.transport=ssh",
        "device.host=board device.python=python3.11",
        "device.host=board device.ssh_config=config",
        "device.machine=aarch64",
        "data.root=other",
        "data.source=digits",
        "data.source=shards",
        "data.source=torchvision data.name=CIFAR10",
        "data.holdout=0.3",
        "data.mean=[0.1,0.1,0.1] data.std=[0.2,0.2,0.2]",
        "data.resize_ratio=1.2",
        "data.licence=CC-BY-4.0",
        "profile.rounds=5",
        "profile.runs=2",
        "profile.networks=9",
        "profile.max_seconds=10",
        "profile.max_rounds=50",
        "profile.interval=0.05",
        "profile.cache_dir=elsewhere",
        "profile.accept=[driver,name]",
        "profile.retry_errors=true",
        "validation.networks=9",
        "validation.seed=3",
        "pretrain.epochs=50",
        "pretrain.batch_size=128",
        "pretrain.lr=0.1",
        "pretrain.weight_decay=0.1",
        "pretrain.momentum=0.8",
        "pretrain.warmup_epochs=1",
        "pretrain.queue_size=1024",
        "pretrain.temperature=0.3",
        "pretrain.ema_momentum=0.9",
        "pretrain.projector_hidden_dim=64",
        "pretrain.projector_dim=32",
        "pretrain.projector_bn=false",
        "pretrain.optimizer=lars",
        "pretrain.random_subnets=2",
        "pretrain.largest_only_epochs=3",
        "pretrain.loss_weights=[1,1,0.5]",
        "pretrain.distill=0.5",
        "pretrain.faithful=true",
        "pretrain.device=cpu",
        "pretrain.precision=bf16",
        "pretrain.accumulation=2",
        "pretrain.bn_group_size=8",
        "pretrain.compile=true",
        "pretrain.workers=1",
        "pretrain.threads=1",
        "pretrain.init=elsewhere",
        "pretrain.knn_k=5",
        "pretrain.knn_every_epochs=3",
        "pretrain.checkpoint_minutes=5",
        "pretrain.tensorboard=false",
        "pretrain.augmentation.batched=false",
        "pretrain.augmentation.crop_scale=[0.5,1.0]",
        "pretrain.augmentation.flip_probability=0.1",
        "pretrain.augmentation.grayscale_probability=0.1",
        "pretrain.augmentation.blur_probability=0.1",
        "pretrain.augmentation.solarize_probability=0.1",
        "pretrain.augmentation.jitter.brightness=0.1",
        "pretrain.augmentation.jitter.contrast=0.1",
        "pretrain.augmentation.jitter.saturation=0.1",
        "pretrain.augmentation.jitter.hue=0.2",
        "pretrain.augmentation.jitter.probability=0.1",
        "evaluation.knn_k=5",
        "evaluation.knn_temperature=0.2",
        "evaluation.train_images=100",
        "evaluation.test_images=100",
        "rank.subnets=9",
        "rank.accuracy=linear",
        "rank.bins=2",
        "rank.draws=200",
        "rank.seed=3",
        "search.strategy=random",
        "search.evaluations=9",
        "search.population=3",
        "search.task=detection",
        "search.score=cka",
        "search.reference=largest",
        "search.task=segmentation search.stages=[1,2]",
        "search.images=9",
        "search.calibration_images=9",
        "search.batch_size=9",
        "search.winners=3",
        "search.reserves=3",
        "search.budgets.latency_of_largest=0.3",
        "search.budgets.latency_of_largest=[0.3,0.4]",
        "search.budgets.latency_of_largest= search.budgets.latency_ms=3",
        "search.budgets.latency_p95_ms=3",
        "search.budgets.params=1000",
        "search.budgets.macs=1000",
        'search.budgets.macs={"min":10,"max":1000}',
        "search.budgets.latency_of_largest= search.budgets.latency_ms=[3,4]",
        "search.budgets.activation_bytes=1000",
        "search.budgets.weight_bytes=1000",
        'search.budgets.devices={"local-gpu":{"latency_ms":3}}',
        "search.candidates_at_once=3",
        "export.output=logits",
        "export.batch=dynamic",
        "export.quantization=entropy",
        "export.max_replacements=1",
        "export.tensorrt=",
        "export.tensorrt.compute_capabilities=[SM86]",
        "export.tensorrt.precision=fp32 export.tensorrt.compute_capabilities=[SM86]",
    ],
)
def test_a_changed_value_changes_an_argument(override):
    assert arguments_of(*override.split(" ")) != arguments_of()


@pytest.mark.parametrize(
    ("overrides", "precision"),
    [
        (["device.name=rtx-pc"], "fp16"),
        (["device.name=rtx-pc", "device.precision=int8"], "int8"),
        (["device.name=rtx-pc", "device.precision=int8", "export.tensorrt.precision=fp16"], "fp16"),
        (["device.precision=int8"], "fp16"),
    ],
)
def test_engines_are_in_eight_bits_as_a_tensorrt_device_is(overrides, precision):
    config = load_config("cifar10", ["data.root=images", *overrides])
    assert stages.export_arguments(config)["tensorrt"].precision == precision


@pytest.mark.parametrize(
    ("method", "override"),
    [
        ("byol", "pretrain.predictor_hidden_dim=64"),
        ("densecl", "pretrain.dense_weight=0.3"),
        ("ressl", "pretrain.teacher_temperature=0.05"),
    ],
)
def test_a_changed_option_of_another_method_changes_an_argument(method, override):
    base = [f"pretrain.method={method}", "pretrain.queue_size=", "pretrain.temperature="]
    assert arguments_of(*base, override) != arguments_of(*base)


def test_the_lists_above_hold_every_key():
    def keys(model, path=""):
        for name in type(model).model_fields:
            value = getattr(model, name)
            if hasattr(type(value), "model_fields"):
                yield from keys(value, f"{path}{name}.")
            else:
                yield f"{path}{name}"

    of_all, of_some = (
        test.pytestmark[0].args[1]
        for test in (
            test_a_changed_value_changes_an_argument,
            test_a_changed_option_of_another_method_changes_an_argument,
        )
    )
    tried = " ".join([*of_all, *(override for _, override in of_some)])
    # One device and one space family so far; names are resolved by the configuration.
    apart = {"pretrain.method", "device.name", "device.runtime"}
    apart |= {"space.name", "space.family"}
    config = load_config("cifar10", ["data.root=images"])
    missing = [key for key in keys(config) if f"{key}=" not in tried and key not in apart]
    assert missing == []
