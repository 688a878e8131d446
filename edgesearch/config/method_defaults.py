"""What each method of pre-training takes, and what is meant where nothing is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MethodDefaults:
    """The recipe of a method's paper for ImageNet, by keys of the section `pretrain`.

    Attributes:
        training: How the optimizer goes; the same keys for all methods.
        options: What the method itself takes; no other key of that kind is allowed.
        augmentation: Where the views differ from those of MoCo v2.
    """

    training: Mapping[str, Any]
    options: Mapping[str, Any]
    augmentation: Mapping[str, Any] = field(default_factory=dict)


def _sgd(lr: float, warmup_epochs: int) -> dict[str, Any]:
    return {"optimizer": "sgd", "lr": lr, "weight_decay": 1e-4, "warmup_epochs": warmup_epochs}


def _lars(lr: float, weight_decay: float) -> dict[str, Any]:
    return {"optimizer": "lars", "lr": lr, "weight_decay": weight_decay, "warmup_epochs": 10}


_MOCO_V2 = {
    "queue_size": 65536,
    "temperature": 0.2,
    "ema_momentum": 0.999,
    "projector_hidden_dim": 2048,
    "projector_dim": 128,
    "projector_bn": False,
}

METHOD_DEFAULTS = {
    "moco_v2": MethodDefaults(_sgd(0.03, 0), _MOCO_V2),
    "byol": MethodDefaults(
        _lars(0.2, 1.5e-6),
        {
            "ema_momentum": 0.996,
            "projector_hidden_dim": 4096,
            "projector_dim": 256,
            "projector_bn": True,
            "predictor_hidden_dim": 4096,
        },
        {
            "crop_scale": (0.08, 1.0),
            "jitter": {"saturation": 0.2},
            "blur_probability": 1.0,
            "solarize_probability": 0.2,
        },
    ),
    "densecl": MethodDefaults(_sgd(0.03, 0), {**_MOCO_V2, "dense_weight": 0.5}),
    "ressl": MethodDefaults(
        _sgd(0.05, 5),
        {
            "queue_size": 131072,
            "temperature": 0.1,
            "teacher_temperature": 0.04,
            "ema_momentum": 0.999,
            "projector_hidden_dim": 4096,
            "projector_dim": 512,
            "projector_bn": True,
        },
    ),
    "simclr": MethodDefaults(
        _lars(0.3, 1e-6),
        {
            "temperature": 0.1,
            "projector_hidden_dim": 2048,
            "projector_dim": 128,
            "projector_bn": True,
        },
        {
            "crop_scale": (0.08, 1.0),
            "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
        },
    ),
}
"""By the method's name, as in `edgesearch.pretrain.METHODS`; lr is that for a batch of 256."""
