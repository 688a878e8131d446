"""The device of a training."""

from __future__ import annotations

import os

import torch

from edgesearch.errors import TrainingError
from edgesearch.processes import distributed


def torch_device(name: str, section: str = "pretrain") -> torch.device:
    """The device of this process for "auto" (CUDA if available), "cpu" or "cuda".

    `section` is the section of the configuration that names it.

    Raises:
        TrainingError: There is no CUDA device, or not one per process on this machine.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", 0)) if distributed.world_size() > 1 else 0
    if local < count:
        return torch.device("cuda", local)
    raise TrainingError(
        f"a CUDA device for each process on this machine for {section}.device={name}",
        f"{count} for at least {local + 1} processes"
        if count
        else f"none that torch {torch.__version__} can use",
        f"Start fewer processes (torchrun --nproc-per-node), or set {section}.device=cpu.",
    )
