"""Training hardware: device, compiler, and advice when memory runs out."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import torch
from torch import nn

from edgesearch.errors import TrainingError
from edgesearch.pretrain.key_queue import queues_of
from edgesearch.pretrain.method import Method, Views
from edgesearch.pretrain.passes import Passes, settings_near
from edgesearch.processes import distributed

_GIB = 2**30
_SAFE_SHARE = 0.9
"""Share of free memory that suggested passes fill; fragmentation takes the rest."""
_PROBE_SHARE = 8
_FEWEST = 2
"""Images that batch normalisation needs."""


def compile_ends(method: Method, device: torch.device, accumulation: int = 1) -> None:
    """Compile the largest and the smallest network; random subnets stay uncompiled.

    Each pass of a step has its own momentum of the running statistics and thus its own graph: more
    passes take longer to compile.

    Raises:
        TrainingError: torch finds no compiler.
    """
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.ones(8, device=device))
    except Exception as error:  # torch raises a different type for each missing tool
        raise TrainingError(
            f"a compiler that torch can use for {device.type}, for pretrain.compile=true",
            str(error).strip().splitlines()[0],
            "Install a C++ compiler (on a GPU also triton), or set pretrain.compile=false.",
        ) from error
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, 8 + 4 * accumulation)
    space = method.space
    for encoder in (method.query, method.key):
        if encoder is not None:
            encoder.supernet.compile_for((space.largest, space.smallest))


class CudaMemory:
    """The memory of a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._at_reset = 0

    def reset(self) -> None:
        """Free cached memory and reset the peak."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        self._at_reset = torch.cuda.memory_allocated(self.device)

    def highest_bytes(self) -> int:
        """Peak since the last reset, minus the use at the reset."""
        return torch.cuda.max_memory_allocated(self.device) - self._at_reset

    def free_bytes(self) -> int:
        """Free memory of the device."""
        return torch.cuda.mem_get_info(self.device)[0]


def images_that_fit(
    run: Callable[[int], None], count: int, memory: CudaMemory
) -> tuple[int, int] | None:
    """Images that fit into a pass, and bytes per image, extrapolated from a pass with few.

    `run` runs a pass with a number of images; `count` did not fit. None if not even two fit.
    """
    few = max(_FEWEST, count // _PROBE_SHARE)
    while True:
        memory.reset()
        free = memory.free_bytes()
        try:
            run(few)
        except torch.cuda.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)
            if few == _FEWEST:
                return None
            few = max(_FEWEST, few // 2)
            continue
        each = max(1, memory.highest_bytes() // few)
        return min(count - 1, max(few, int(_SAFE_SHARE * free) // each)), each


def out_of_memory(
    method: Method, views: Views, passes: Passes, memory: CudaMemory, found: str
) -> TrainingError:
    """The error of a step that ran out of memory, with advice from measurements.

    The method's gradients are lost. `found` is torch's error message.
    """

    def run(count: int) -> None:
        method.zero_grad(set_to_none=True)
        few = tuple(view[:count] for view in views)
        with distributed.alone(), passes.autocast(views[0].device):
            method.activate(method.space.largest)
            method.loss(few, method.targets(few)).value.backward()

    share = len(views[0])
    count = share // passes.accumulation
    fitting = images_that_fit(run, count, memory)
    method.zero_grad(set_to_none=True)
    if fitting is None:
        remedy = f"Not even {_FEWEST} images fit: choose a smaller space or resolution."
    else:
        remedy = _remedy(method, passes, share, *fitting)
    return TrainingError(
        f"memory for passes of {count} images on the device", found.splitlines()[0], remedy
    )


def no_memory_for_views(found: str) -> TrainingError:
    """The error if the views of a batch exceed the memory."""
    return TrainingError(
        "memory for the views of a batch on the device",
        found.splitlines()[0],
        "Set a smaller pretrain.batch_size, or pretrain.augmentation.batched=false. The last good "
        "state has been kept.",
    )


def move(method: nn.Module, device: torch.device, memory_format: torch.memory_format) -> None:
    """Move a method to the training device, in a memory format.

    Raises:
        TrainingError: The device has too little memory.
    """
    try:
        method.to(device).to(memory_format=memory_format)
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            "memory for the supernet and its key encoder on the device",
            str(error).splitlines()[0],
            "Stop other programs on the device, or choose a smaller space or pretrain.queue_size.",
        ) from error


def _remedy(method: Method, passes: Passes, share: int, fitting: int, each_bytes: int) -> str:
    about = f"About {fitting} images fit ({each_bytes / _GIB:.3g} GiB each): set"
    group = passes.group_size or 1
    cuts = [
        parts
        for parts in range(passes.accumulation + 1, share + 1)
        if share % parts == 0
        and _FEWEST <= share // parts <= fitting
        and share // parts % group == 0
    ]
    step = group * passes.accumulation * distributed.world_size()
    first = step if passes.group_size else _FEWEST * step  # a normalisation needs 2 images
    smaller = range(first, fitting // group * step + 1, step)
    advice = [f"pretrain.accumulation={cuts[0]}"] if cuts and not method.batch_is_negatives else []
    if smaller:
        any_less = " or less" if step == 1 and not queues_of(method) else ""
        advice.append(settings_near(method, smaller[-1], smaller) + any_less)
    if passes.precision == "fp32":
        advice.append("pretrain.precision=bf16")
    return f"{about} {', or '.join(advice)}."
