"""Shared weights, and subnets taken out of them."""

from edgesearch.supernet.calibrate import recalibrate, recalibrate_all
from edgesearch.supernet.dynamic_ops import (
    BatchGroups,
    DynamicBatchNorm2d,
    DynamicConv2d,
    DynamicLinear,
    GroupedBatchNorm1d,
    set_batch_groups,
)
from edgesearch.supernet.extract import copy_leading, extract
from edgesearch.supernet.projector import Projector
from edgesearch.supernet.resnet import ResNet
from edgesearch.supernet.subnet import OUTPUTS, Subnet
from edgesearch.supernet.supernet import Supernet
from edgesearch.supernet.weights import SupernetWeights, random_like

__all__ = [
    "OUTPUTS",
    "BatchGroups",
    "DynamicBatchNorm2d",
    "DynamicConv2d",
    "DynamicLinear",
    "GroupedBatchNorm1d",
    "Projector",
    "ResNet",
    "Subnet",
    "Supernet",
    "SupernetWeights",
    "copy_leading",
    "extract",
    "random_like",
    "recalibrate",
    "recalibrate_all",
    "set_batch_groups",
]
