"""Collective operations over the processes of a run; with one process they do nothing.

`torchrun`, or any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT,
starts the processes. GPU tensors use NCCL, all others Gloo, which notices at once when a process
has ended.
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
from edgesearch.errors import (
    Interrupted,
    ProcessesError,
    ProcessFailed,
    ProcessStopped,
    lack_of_memory,
)

Value = TypeVar("Value")
STEP_TIMEOUT = timedelta(minutes=10)
"""Longest wait for the other processes within a step."""
EPOCH_TIMEOUT = timedelta(hours=6)
"""Longest wait for work that the first process does alone, such as an evaluation."""
_START_ALL = (
    "Start them all, with `torchrun --nproc-per-node N --no-python edgesearch …`; to run one "
    "process alone, unset WORLD_SIZE."
)
_ENDED = "edgesearch/ended"
_STOPS = (Interrupted, KeyboardInterrupt)
_waits = 0
_alone = False


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def rank() -> int:
    """Rank of this process."""
    return dist.get_rank() if dist.is_initialized() and not _alone else 0


@contextmanager
def alone() -> Iterator[None]:
    """Treat this process as the only one within the context."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


@contextmanager
def processes(
    timeout: timedelta = STEP_TIMEOUT, notice: Callable[[str], None] = lambda message: None
) -> Iterator[None]:
    """Join the process group that the environment describes, if there are several processes.

    An error or interrupt in one process ends all. Only the first error keeps its type; the errors
    of the other processes become `ProcessFailed` or `ProcessStopped`. The first process of each
    machine calls `notice` before it waits.

    Raises:
        Interrupted: The user stopped this process.
        ProcessFailed: Another process failed and reports why.
        ProcessStopped: Another process was stopped and reports it.
        ProcessesError: The processes do not find each other, or one ended without a report.
    """
    if dist.is_initialized() or _number("WORLD_SIZE", 1) == 1:
        yield
        return
    _join(timeout, notice)
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # torchrun signals all others as soon as one process has ended: until the command line has
        # told the error and restores the handlers, the first signal is only recorded.
        StopSignals().__enter__()
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
    """The error itself in the process that ends first, otherwise one derived from it."""
    own = f"{'stopped' if isinstance(error, _STOPS) else 'failed'} {dist.get_rank()}"
    try:
        first = _store().compare_set(_ENDED, "", own).decode()
    except RuntimeError:  # the store ended with its process
        first = own.split()[0]
    if first in ("", own):
        return Interrupted("stopped") if isinstance(error, KeyboardInterrupt) else error
    kind = ProcessStopped if first.startswith("stopped") else ProcessFailed
    return kind(str(error))


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


@contextmanager
def _answered() -> Iterator[None]:
    """Turn an error of a collective operation into a `ProcessesError`."""
    try:
        yield
    except RuntimeError as error:
        own = isinstance(error, torch.cuda.OutOfMemoryError) or is_of_a_worker(error)
        if own or lack_of_memory(error):
            raise  # an error of this process
        raise ProcessesError(
            f"all {world_size()} processes of the run",
            f"one that has ended or does not answer ({str(error).splitlines()[0]})",
            "Read the output of that process, then run the same command again to continue.",
        ) from error


def is_of_a_worker(error: RuntimeError) -> bool:
    """Whether torch reports that processes of a `DataLoader` have died or are out of reach."""
    beginnings = ("DataLoader worker", "Pin memory thread", "Too many open files")
    return str(error).lstrip().startswith(beginnings)


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
    """Concatenate the rows (N, …) of all processes to (world size · N, …), as in the global batch.

    The gradient of a row is the sum over the losses of all processes.
    """
    if world_size() == 1:
        return rows
    with _answered():
        return _GatherRows.apply(rows.contiguous())


def average(tensors: Sequence[torch.Tensor], figures: Sequence[float]) -> list[float]:
    """Replace tensors by their means over the processes, in one all-reduce.

    Dtype, device and shapes are the same in each process. Returns the means of the figures.
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
    """The numbers of each process in rank order, in one all-gather."""
    if world_size() == 1:
        return [numbers]
    held = [torch.zeros(len(numbers), dtype=torch.long) for _ in range(world_size())]
    with _answered():
        dist.all_gather(held, torch.tensor(numbers))
    return [tuple(each.tolist()) for each in held]


def of_first(value: Value) -> Value:
    """Broadcast of the first process's value: plain values or tensors on the CPU."""
    if world_size() == 1:
        return value
    held = [value]
    with _answered():
        dist.broadcast_object_list(held, 0, device=torch.device("cpu"))
    return held[0]


def of_all(value: Value) -> list[Value]:
    """The plain values of all processes in rank order."""
    if world_size() == 1:
        return [value]
    held = [value] * world_size()
    with _answered():
        dist.all_gather_object(held, value)
    return held


def share_weights(module: nn.Module) -> None:
    """Copy the first process's weights and buffers to all processes."""
    if world_size() == 1:
        return
    with _answered():
        for tensor in module.state_dict().values():
            held = tensor.contiguous()
            dist.broadcast(held, 0)
            tensor.copy_(held)


def wait_for_first() -> None:
    """Barrier that allows the first process to work alone for `EPOCH_TIMEOUT`."""
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
