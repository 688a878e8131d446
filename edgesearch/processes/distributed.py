"""Several processes that do one thing together; alone, every function does nothing.

The processes are those of `torchrun`, or of anything else that sets its variables (RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Tensors of a GPU go through NCCL, all others
through Gloo, which notices at once when a process has ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from devices.signals import StopSignals, ended_by_signals
from edgesearch.errors import Interrupted, ProcessesError, ProcessFailed, ProcessStopped

Value = TypeVar("Value")
STEP_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others within a step."""
EPOCH_TIMEOUT = timedelta(hours=6)
"""How long the others wait for what the first process does alone, such as an evaluation."""
_START_ALL = (
    "Start them all, with `torchrun --nproc-per-node N -m edgesearch …`; to run one process alone, "
    "unset WORLD_SIZE."
)
_ENDED = "edgesearch/ended"
_STOPS = (Interrupted, KeyboardInterrupt)
_waits = 0
_alone = False


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


@contextmanager
def alone() -> Iterator[None]:
    """Let this process try something without the others."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def _tell_nobody(message: str) -> None:
    pass


@contextmanager
def processes(
    timeout: timedelta = STEP_TIMEOUT, notice: Callable[[str], None] = _tell_nobody
) -> Iterator[None]:
    """Join the processes that the environment names, if there are several.

    Whatever ends one of them ends all. Of the errors and interrupts in several processes only the
    first is raised as what it is: what follows from it in the others, or is the same there, becomes
    a `ProcessFailed` or `ProcessStopped`.

    Args:
        timeout: How long a process waits for the others at most.
        notice: Is told whom this process waits for, if it is the first on its machine.

    Raises:
        Interrupted: This process was stopped by the user.
        ProcessFailed: Another process has failed, and says why.
        ProcessStopped: Another process was stopped, and says so.
        ProcessesError: The processes do not find each other, or one of them ended without a word.
    """
    if dist.is_initialized() or _number("WORLD_SIZE", 1) == 1:
        yield
        return
    _join(timeout, notice)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        with StopSignals():  # torchrun sends one to all others as soon as one has ended
            ending = _as_one_of_several(error)
            _leave()
        if ending is error:
            raise
        raise ending from error
    finally:
        _leave()


def _join(timeout: timedelta, notice: Callable[[str], None]) -> None:
    count, local = _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    if not 0 <= _number("RANK") < count:
        raise ProcessesError(
            f"RANK from 0 to {count - 1} for {count} processes (WORLD_SIZE)",
            f"RANK {os.environ['RANK']}",
            _START_ALL,
        )
    address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(local % gpus)
    backend = "cpu:gloo,cuda:nccl" if gpus and dist.is_nccl_available() else "gloo"
    try:
        with ended_by_signals():
            if local == 0:
                notice(f"waiting for {count} processes at {address}")
            dist.init_process_group(backend, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise ProcessesError(
            f"{count} processes (WORLD_SIZE) that find each other at {address}",
            str(error).splitlines()[0],
            _START_ALL,
        ) from error


def _number(name: str, default: int | None = None) -> int:
    """A number of the environment."""
    given = os.environ.get(name, default)
    try:
        return int(str(given))
    except ValueError:
        found = "none" if given is None else repr(given)
        raise ProcessesError(f"a number in the variable {name}", found, _START_ALL) from None


def _leave() -> None:
    if dist.is_initialized():
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _as_one_of_several(error: BaseException) -> BaseException:
    """What to raise for an error: itself in the process that ends first, which speaks for all."""
    own = f"{'stopped' if isinstance(error, _STOPS) else 'failed'} {dist.get_rank()}"
    try:
        first = _store().compare_set(_ENDED, "", own).decode()
    except RuntimeError:  # the store has gone with the process that held it
        first = own.split()[0]
    if first == own:
        return Interrupted("stopped") if isinstance(error, KeyboardInterrupt) else error
    kind = ProcessStopped if first.startswith("stopped") else ProcessFailed
    return kind(str(error))


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


@contextmanager
def _answered() -> Iterator[None]:
    """Name what is behind an error of a collective operation."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or is_of_a_worker(error):
            raise  # of this process, not of another one
        raise ProcessesError(
            f"all {world_size()} processes of the run",
            f"one that has ended or does not answer ({str(error).splitlines()[0]})",
            "Look for what it said; then run the same command again to go on.",
        ) from error


def is_of_a_worker(error: RuntimeError) -> bool:
    """Whether torch tells of a worker process of a `DataLoader` that has died."""
    return str(error).lstrip().startswith("DataLoader worker")


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous().clone()
        with _answered():
            dist.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """The rows of all processes, in the order of the global batch.

    Args:
        rows: (N, …), as many in each process.

    Returns:
        (world size · N, …). Backward, each process gets what the losses of all processes have to
        say about its own rows.
    """
    if world_size() == 1:
        return rows
    with _answered():
        gathered: torch.Tensor = _GatherRows.apply(rows.contiguous())
        return gathered


def average(tensors: Sequence[torch.Tensor], figures: Sequence[float]) -> list[float]:
    """Replace tensors by their means over the processes, by a single exchange.

    Args:
        tensors: Of one type and device, of the same shapes in each process; changed in place.
        figures: Further numbers, as many in each process.

    Returns:
        The means of the figures.
    """
    if world_size() == 1:
        return list(figures)
    device = tensors[0].device if tensors else torch.device("cpu")
    pieces = [*tensors, torch.tensor(figures, dtype=torch.float32, device=device)]
    flat = torch.cat([piece.detach().reshape(-1).float() for piece in pieces])
    with _answered():
        dist.all_reduce(flat)
    flat.div_(world_size())
    means = flat.split([piece.numel() for piece in pieces])
    with torch.no_grad():
        for tensor, mean in zip(tensors, means, strict=False):
            tensor.copy_(mean.view(tensor.shape))
    return [float(value) for value in means[-1].tolist()]


def numbers_of_all(*numbers: int) -> list[tuple[int, ...]]:
    """The numbers of the first process, of the second, and so on, by a single exchange."""
    if world_size() == 1:
        return [numbers]
    held = [torch.zeros(len(numbers), dtype=torch.long) for _ in range(world_size())]
    with _answered():
        dist.all_gather(held, torch.tensor(numbers))
    return [tuple(each.tolist()) for each in held]


def of_first(value: Value) -> Value:
    """What the first process gives: a plain value, or a structure of tensors on the CPU."""
    if world_size() == 1:
        return value
    held = [value]
    with _answered():
        dist.broadcast_object_list(held, 0, device=torch.device("cpu"))
    return held[0]


def of_all(value: Value) -> list[Value]:
    """The plain values of all processes, in their order."""
    if world_size() == 1:
        return [value]
    held = [value] * world_size()
    with _answered():
        dist.all_gather_object(held, value)
    return held


def share_weights(module: nn.Module) -> None:
    """Give all processes the weights and buffers of the first."""
    if world_size() == 1:
        return
    with _answered():
        for tensor in module.state_dict().values():
            held = tensor.contiguous()
            dist.broadcast(held, 0)
            tensor.copy_(held)


def wait_for_first() -> None:
    """Wait until the first process, which may work alone for long before, comes here, too."""
    if world_size() == 1:
        return
    global _waits
    _waits += 1
    name = f"edgesearch/waited/{_waits}"
    with _answered():
        if rank() == 0:
            _store().set(name, "1")
        else:
            _store().wait([name], EPOCH_TIMEOUT)
