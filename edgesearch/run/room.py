"""Whether a run fits into this machine's memory and onto its disk, estimated from below."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from devices.machine import usable_memory
from edgesearch.errors import SpaceError, StageError, TrainingError
from edgesearch.formats.precisions import precision_of
from edgesearch.run.context import RunContext
from edgesearch.space import Block

_VALUE_BYTES = 4
_ONNX_BYTES = 2 << 30
_SMALLER = "Choose smaller widths, depths or resolutions in the section space"
_TRAINED_COPIES = 4
"""Query and key encoder, gradients and momentum."""
_STATE_COPIES = 3
"""What of these a training state holds; also its copies: the present, the former, a partial one."""
_WEIGHT_FILES = 3
"""model.safetensors, best.safetensors and a partial one, each with query and key."""


def check_memory(run: RunContext, images: int | None = None) -> None:
    """Refuse a space whose networks fit into no ONNX file or not into this machine's memory.

    Args:
        run: The run.
        images: Images that pass through the largest network at once; None where its blocks are
            measured instead.

    Raises:
        SpaceError: They do not.
    """
    space, device, memory = run.space, run.device, machine_memory()
    largest = space.params(space.largest) * _VALUE_BYTES
    if largest > _ONNX_BYTES:
        raise SpaceError(
            f"networks of at most {_size(_ONNX_BYTES)} of weights, the limit of an ONNX file",
            f"{_size(largest)} for {space.params(space.largest):,} parameters of {space.largest}",
            f"{_SMALLER}.",
        )
    weights = _parameters(run) * _VALUE_BYTES
    live = max(block.live_values for block in space.blocks(space.largest))
    outputs = live * _VALUE_BYTES * (images or 0)
    if memory and weights + outputs > memory:
        of_images = f" and {_size(outputs)} for its outputs of {images} images" * bool(outputs)
        raise SpaceError(
            f"a supernet that fits into {_size(memory)} of memory",
            f"at least {_size(weights)} for the weights of {space.largest} with its projector"
            f"{of_images}",
            _SMALLER + (", or a smaller search.batch_size." if outputs else "."),
        )
    if images is not None or device.transport != "local":
        return
    # All blocks and networks are loaded at once, and each keeps the memory of its runs.
    blocks, networks = space.distinct_blocks(), run.config.profile.networks
    ends = [_loaded(space.blocks(end), device.batch) for end in (space.smallest, space.largest)]
    loaded = sum(_loaded([block], device.batch) for block in blocks)
    least = (networks - 1) * ends[0] + ends[1]
    needed = (loaded + least) * precision_of(device).value_bytes
    if memory and needed > memory:
        raise SpaceError(
            f"a space whose blocks fit into {_size(memory)} of memory, all loaded at once",
            f"at least {_size(needed)} for {len(blocks)} blocks of {space.name!r} and {networks} "
            f"networks (profile.networks), the largest with {space.params(space.largest):,} "
            "parameters",
            f"{_SMALLER}, or fewer profile.networks.",
        )


def _loaded(blocks: Sequence[Block], batch: int) -> int:
    """Values that a loaded network of these blocks keeps: weights, and outputs at their peak."""
    return sum(each.params for each in blocks) + batch * max(each.live_values for each in blocks)


def check_training_memory(run: RunContext) -> None:
    """Refuse a training that cannot fit into this machine's memory.

    Raises:
        TrainingError: The largest network's weights and outputs alone take more than all of it.
    """
    from edgesearch.training.torch_device import torch_device

    settings, space, memory = run.config.pretrain, run.space, machine_memory()
    on_processor = torch_device(settings.device).type == "cpu"
    weights = _parameters(run) * _VALUE_BYTES * (_TRAINED_COPIES if on_processor else 1)
    # At least the output of each block is kept for the backward pass.
    kept = sum(block.live_values for block in space.blocks(space.largest)) // 2
    images = settings.batch_size // settings.accumulation
    outputs = kept * images * _VALUE_BYTES if on_processor else 0
    if memory and weights + outputs > memory:
        raise TrainingError(
            f"a training that fits into {_size(memory)} of memory",
            f"at least {_size(weights)} for the weights of {space.largest} and {_size(outputs)} "
            f"for its outputs of {images} images",
            "Choose a smaller space (widths, depths, resolutions)"
            + (
                ", a smaller pretrain.batch_size or more pretrain.accumulation." if outputs else "."
            ),
        )


def disk_needed(run: RunContext) -> int:
    """What a training keeps on the disk beyond what it has there already."""
    settings, folder = run.config.pretrain, run.files.supernet
    queue = (settings.queue_size or 0) * (settings.projector_dim or 0) * _VALUE_BYTES
    weights = _parameters(run) * _VALUE_BYTES
    states = _STATE_COPIES * (_STATE_COPIES * weights + queue)
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return states + _WEIGHT_FILES * 2 * weights - held


def disk_free(run: RunContext) -> int:
    """Free space for the output folder."""
    folder = run.files.supernet
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def check_disk(run: RunContext, taught_bytes: int = 0, kind: str = "embeddings") -> None:
    """Refuse a training whose files do not fit onto the disk.

    Args:
        run: The run.
        taught_bytes: What a teacher's embeddings or maps take that are missing.
        kind: Which of them.

    Raises:
        StageError: The disk of the output folder has too little room.
    """
    needed, free = disk_needed(run) + taught_bytes, disk_free(run)
    if needed > free:
        taught = f" and {_size(taught_bytes)} of a teacher's {kind}"
        raise StageError(
            f"about {_size(needed)} of free space for training states and weights"
            f"{taught if taught_bytes else ''} in {run.files.output_dir}",
            f"{_size(free)}",
            "Free space, or choose an output_dir on another disk.",
        )


def _parameters(run: RunContext) -> int:
    """Parameters of the largest network with its projector."""
    space, settings = run.space, run.config.pretrain
    hidden = settings.projector_hidden_dim or 0  # a teacher's length is not known yet
    projector = hidden * (space.feature_dim(space.largest) + (settings.projector_dim or 0))
    return space.params(space.largest) + projector


def machine_memory() -> int:
    """Memory that this machine, or a limit on it, leaves to the run, in bytes; 0 if unknown."""
    return usable_memory()


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
