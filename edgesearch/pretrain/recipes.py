"""The methods of pre-training: implementation and defaults from their papers on ImageNet.

A method is a file and an entry here. This file needs neither torch nor pydantic. (An option that no
other method has is also declared in `settings.py`, with bounds and documentation.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A method's class and its defaults by keys of the section `pretrain`.

    Attributes:
        implementation: "module:class".
        training: Optimizer and schedule, the same keys for all methods; `lr` for a batch of 256.
        options: The method's own options: keyword arguments of the class. Options of other methods
            are refused.
        augmentation: Differences from MoCo v2's augmentation.
        taught: Whether it learns from a teacher alone.
        dense: Whether its loss compares places of images, so that it learns a teacher's maps.
    """

    implementation: str
    training: Mapping[str, Any]
    options: Mapping[str, Any]
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    taught: bool = False
    dense: bool = False


def _sgd(lr: float, warmup_epochs: int) -> dict[str, Any]:
    return _training("sgd", lr, 1e-4, warmup_epochs)


def _lars(lr: float, weight_decay: float) -> dict[str, Any]:
    return _training("lars", lr, weight_decay, 10)


def _training(
    optimizer: str, lr: float, weight_decay: float, warmup_epochs: int, clip: float | None = None
) -> dict[str, Any]:
    return {
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "warmup_epochs": warmup_epochs,
        "clip_gradient": clip,
    }


def _projector(hidden_dim: int | None, dim: int | None, bn: bool) -> dict[str, Any]:
    return {"projector_hidden_dim": hidden_dim, "projector_dim": dim, "projector_bn": bn}


_MOCO_V2 = {
    "queue_size": 65536,
    "temperature": 0.2,
    "ema_momentum": 0.999,
    **_projector(2048, 128, False),
}

RECIPES = {
    "moco_v2": Recipe("edgesearch.pretrain.moco_v2:MoCoV2", _sgd(0.03, 0), _MOCO_V2),
    "byol": Recipe(
        "edgesearch.pretrain.byol:BYOL",
        _lars(0.2, 1.5e-6),
        {"ema_momentum": 0.996, **_projector(4096, 256, True), "predictor_hidden_dim": 4096},
        {
            "crop_scale": (0.08, 1.0),
            "jitter": {"saturation": 0.2},
            "blur_probability": 1.0,
            "solarize_probability": 0.2,
        },
    ),
    "densecl": Recipe(
        "edgesearch.pretrain.densecl:DenseCL",
        _sgd(0.03, 0),
        {**_MOCO_V2, "dense_weight": 0.5},
        dense=True,
    ),
    "ressl": Recipe(
        "edgesearch.pretrain.ressl:ReSSL",
        _sgd(0.05, 5),
        {
            "queue_size": 131072,
            "temperature": 0.1,
            "teacher_temperature": 0.04,
            "ema_momentum": 0.999,
            **_projector(4096, 512, True),
        },
    ),
    "simclr": Recipe(
        "edgesearch.pretrain.simclr:SimCLR",
        _lars(0.3, 1e-6),
        {"temperature": 0.1, **_projector(2048, 128, True)},
        {
            "crop_scale": (0.08, 1.0),
            "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
        },
    ),
    "distillation": Recipe(
        "edgesearch.pretrain.distillation:Distillation",
        _training("adamw", 1e-3, 0.02, 1, clip=5.0),
        _projector(None, None, False),
        {
            "crop_scale": (0.35, 1.0),
            "jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05},
            "grayscale_probability": 0.0,
            "blur_probability": 0.0,
        },
        taught=True,
    ),
}
