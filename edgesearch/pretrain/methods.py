"""The methods of pre-training by name."""

from __future__ import annotations

from collections.abc import Callable

from edgesearch.pretrain.byol import BYOL
from edgesearch.pretrain.densecl import DenseCL
from edgesearch.pretrain.method import Method
from edgesearch.pretrain.moco_v2 import MoCoV2
from edgesearch.pretrain.ressl import ReSSL
from edgesearch.pretrain.simclr import SimCLR

METHODS: dict[str, Callable[..., Method]] = {
    "moco_v2": MoCoV2,
    "byol": BYOL,
    "densecl": DenseCL,
    "ressl": ReSSL,
    "simclr": SimCLR,
}
