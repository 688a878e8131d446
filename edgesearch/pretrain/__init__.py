"""Label-free pre-training of the supernet."""

from edgesearch.pretrain.batched_views import BatchedViews
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.moco_v2 import MoCoV2
from edgesearch.pretrain.sandwich import sandwich_architectures, sandwich_step
from edgesearch.pretrain.trainer import EpochReport, Monitor, Trainer, TrainerConfig
from edgesearch.pretrain.views import Augmentation, TorchvisionViews

METHODS = {"moco_v2": MoCoV2}

__all__ = [
    "METHODS",
    "Augmentation",
    "BatchedViews",
    "EpochReport",
    "MoCoV2",
    "Monitor",
    "TorchvisionViews",
    "Trainer",
    "TrainerConfig",
    "make_loader",
    "sandwich_architectures",
    "sandwich_step",
]
