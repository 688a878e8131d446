"""Label-free pre-training of the supernet."""

from collections.abc import Callable

from edgesearch.pretrain import distributed
from edgesearch.pretrain.batched_views import BatchedViews
from edgesearch.pretrain.byol import BYOL
from edgesearch.pretrain.densecl import DenseCL
from edgesearch.pretrain.epoch_report import EpochReport, StepReport
from edgesearch.pretrain.faithful import faithful_step
from edgesearch.pretrain.hardware import Hardware
from edgesearch.pretrain.key_queue import KeyQueue, queues_of
from edgesearch.pretrain.lars import LARS
from edgesearch.pretrain.loader import Share, make_loader
from edgesearch.pretrain.method import Method
from edgesearch.pretrain.moco_v2 import MoCoV2
from edgesearch.pretrain.ressl import ReSSL
from edgesearch.pretrain.sandwich import StepResult, sandwich_architectures, sandwich_step
from edgesearch.pretrain.simclr import SimCLR
from edgesearch.pretrain.trainer import Monitor, Trainer
from edgesearch.pretrain.trainer_config import TrainerConfig
from edgesearch.pretrain.views import Augmentation, TorchvisionViews

METHODS: dict[str, Callable[..., Method]] = {
    "moco_v2": MoCoV2,
    "byol": BYOL,
    "densecl": DenseCL,
    "ressl": ReSSL,
    "simclr": SimCLR,
}

__all__ = [
    "BYOL",
    "LARS",
    "METHODS",
    "Augmentation",
    "BatchedViews",
    "DenseCL",
    "EpochReport",
    "Hardware",
    "KeyQueue",
    "Method",
    "MoCoV2",
    "Monitor",
    "ReSSL",
    "Share",
    "SimCLR",
    "StepReport",
    "StepResult",
    "TorchvisionViews",
    "Trainer",
    "TrainerConfig",
    "distributed",
    "faithful_step",
    "make_loader",
    "queues_of",
    "sandwich_architectures",
    "sandwich_step",
]
