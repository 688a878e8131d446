"""Forward passes of a step: normalisation groups, accumulation and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from edgesearch.errors import TrainingError
from edgesearch.pretrain.key_queue import queues_of
from edgesearch.pretrain.method import Method, Views
from edgesearch.processes import distributed
from edgesearch.supernet.dynamic_ops import BatchGroups, set_batch_groups
from edgesearch.training.precision import autocast
from edgesearch.training.randomness import order_of_epoch, seed_of

_SHUFFLE = 0x5B
"""Key of the permutations' seeds."""


class Passes:
    """The passes of this process's share of a batch.

    A process holds the images from `rank · N / world size` on of the global batch of N. If the
    batch has several normalisation groups, keys are grouped by a permutation of the global batch
    that depends on seed and step only: MoCo's shuffled batch normalisation.

    Source: He et al., "Momentum contrast" (CVPR 2020), section 3.3.

    Args:
        method: Its normalisations use the groups.
        batch_size: N.
        group_size: Images normalised together; None for all in a pass.
        accumulation: Passes per process.
        precision: Key of `PRECISIONS`.
        seed: Seed of the permutations.

    Raises:
        TrainingError: The batch cannot be split this way.
    """

    def __init__(
        self,
        method: Method,
        batch_size: int,
        *,
        group_size: int | None = None,
        accumulation: int = 1,
        precision: str = "fp32",
        seed: int = 0,
    ) -> None:
        _check(method, batch_size, group_size, accumulation)
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.group_size = group_size
        self.precision = precision
        self.seed = seed
        self.step = 0
        in_a_pass = batch_size // (distributed.world_size() * accumulation)
        self.several_groups = (group_size or in_a_pass) < batch_size
        self._groups = BatchGroups(group_size, 0, accumulation)
        whole = group_size is None and accumulation == 1
        set_batch_groups(method, None if whole else self._groups)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The autocast context of the networks."""
        return autocast(device, self.precision)

    def encode(
        self, function: Callable[..., Any], *views: torch.Tensor, shuffled: bool = True
    ) -> Any:
        """See `Encode`."""
        if not (shuffled and self.several_groups):
            return self._in_parts(function, views)
        order = order_of_epoch(self.batch_size, seed_of(self.seed, _SHUFFLE), self.step)
        permutation = torch.from_numpy(order).to(views[0].device)
        mine = self._own_rows(permutation)
        encoded = self._in_parts(
            function, tuple(distributed.gather_rows(view)[mine] for view in views)
        )
        back = self._own_rows(permutation.argsort())
        return _each(lambda rows: distributed.gather_rows(rows)[back], encoded)

    def cut(self, views: Views, targets: Any) -> Iterator[tuple[Views, Any]]:
        """Views and targets of each pass of a subnet."""
        for rows in self._parts(len(views[0])):
            yield (
                tuple(view[rows] for view in views),
                _each(lambda tensor, rows=rows: tensor[rows], targets),
            )

    def _in_parts(self, function: Callable[..., Any], views: tuple[torch.Tensor, ...]) -> Any:
        encoded = [function(*(view[rows] for view in views)) for rows in self._parts(len(views[0]))]
        return encoded[0] if len(encoded) == 1 else _joined(encoded)

    def _parts(self, count: int) -> Iterator[slice]:
        length = count // self.accumulation
        for part in range(self.accumulation):
            self._groups.part = part
            yield slice(part * length, (part + 1) * length)

    def _own_rows(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.chunk(distributed.world_size())[distributed.rank()]


def _each(change: Callable[..., torch.Tensor], structure: Any) -> Any:
    """Apply a function to each tensor of a tensor, (named) tuple of tensors or None."""
    if structure is None or isinstance(structure, torch.Tensor):
        return None if structure is None else change(structure)
    changed = [_each(change, part) for part in structure]
    return type(structure)(*changed) if hasattr(structure, "_fields") else tuple(changed)


def _joined(structures: list[Any]) -> Any:
    first = structures[0]
    if first is None or isinstance(first, torch.Tensor):
        return None if first is None else torch.cat(structures)
    joined = [_joined(list(parts)) for parts in zip(*structures, strict=True)]
    return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)


def settings_near(method: Method, batch_size: int, batches: range) -> str:
    """Settings with a batch size from `batches`, not empty, and a queue of whole batches.

    The batch size is between half and twice of the wanted one if possible.
    """
    queue = max((queue.size for queue in queues_of(method)), default=0)
    close = range(batch_size // 2, 2 * batch_size + 1)
    whole = [batch for batch in batches if batch in close and queue % batch == 0]
    near = min(whole or batches, key=lambda batch: abs(batch - batch_size))
    if queue % near == 0:
        return f"pretrain.batch_size={near}"
    fitting = max(1, round(queue / near)) * near
    return f"pretrain.batch_size={near} and pretrain.queue_size={fitting}"


def _check(method: Method, batch_size: int, group_size: int | None, accumulation: int) -> None:
    world = distributed.world_size()
    if accumulation > 1 and method.batch_is_negatives:
        raise TrainingError(
            f"pretrain.accumulation 1 for {type(method).__name__}, whose negatives are the batch",
            f"pretrain.accumulation {accumulation}",
            "Set pretrain.accumulation=1 and a batch_size that fits, or use more processes.",
        )
    if batch_size % (world * accumulation):
        step = world * accumulation * (group_size or 1)
        first = step if group_size else 2 * step  # a normalisation needs 2 images
        batches = range(first, max(first, 2 * batch_size) + 1, step)
        raise TrainingError(
            f"a pretrain.batch_size that {world} processes and pretrain.accumulation "
            f"{accumulation} divide",
            f"pretrain.batch_size {batch_size}",
            f"Set {settings_near(method, batch_size, batches)}, or another number of processes "
            "(torchrun --nproc-per-node).",
        )
    in_a_pass = batch_size // (world * accumulation)
    if in_a_pass < 2:
        raise TrainingError(
            "at least 2 images in a pass, which batch normalisation needs",
            f"{in_a_pass} (pretrain.batch_size {batch_size}, {world} processes, "
            f"pretrain.accumulation {accumulation})",
            "Set a smaller pretrain.accumulation, start fewer processes, or set a larger "
            "pretrain.batch_size.",
        )
    if group_size is not None and in_a_pass % group_size:
        fitting = [n for n in range(2, in_a_pass + 1) if in_a_pass % n == 0]
        raise TrainingError(
            f"a pretrain.bn_group_size that divides the {in_a_pass} images of a pass "
            f"(pretrain.batch_size {batch_size}, {world} processes, pretrain.accumulation "
            f"{accumulation})",
            f"pretrain.bn_group_size {group_size}",
            f"Set pretrain.bn_group_size to one of {', '.join(map(str, fitting))}.",
        )
