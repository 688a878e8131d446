"""How a training computes: precision and memory format, given or chosen by timed steps."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edgesearch.processes import distributed
from edgesearch.settings import AUTO
from edgesearch.space import SearchSpace
from edgesearch.supernet.supernet import Supernet
from edgesearch.training.precision import autocast

if TYPE_CHECKING:
    from edgesearch.pretrain.settings import PretrainSettings

MEMORY_FORMATS = {"channels_last": torch.channels_last, "channels_first": torch.contiguous_format}
"""Orders of the axes of images and convolutions in memory."""
_MARGIN = 0.9
"""Share of the usual computation's time below which another one is chosen."""
_ROUNDS, _LEAST_ROUNDS, _ENOUGH_S = 10, 3, 0.5
_MACS = {"cpu": 5e10, "cuda": 2e13}
"""Multiply-accumulates of a timed step at most, unless `_FEWEST` images have more."""
_FEWEST = 4
_BF16_SETS = {"avx512_bf16", "amx_bf16"}
_KINDS = {"cpu": "processor", "cuda": "GPU"}


@dataclass(frozen=True)
class Computation:
    """How the networks of a training are computed.

    Attributes:
        precision: Key of `PRECISIONS`.
        memory_format: Key of `MEMORY_FORMATS`.
    """

    precision: str
    memory_format: str

    def __str__(self) -> str:
        return f"{self.precision}, {self.memory_format.replace('_', ' ')}"


USUAL = Computation("fp32", "channels_last")
"""What `auto` is where nothing was timed."""


@dataclass(frozen=True)
class Choice:
    """A computation, and how it was chosen, in words."""

    computation: Computation
    words: str


def as_given(settings: PretrainSettings) -> Computation:
    """The computation of settings, the usual one for what is left to the machine."""
    precision, memory_format = settings.precision, settings.memory_format
    return Computation(
        USUAL.precision if precision == AUTO else precision,
        USUAL.memory_format if memory_format == AUTO else memory_format,
    )


def computes_bf16(device: torch.device, instruction_sets: Collection[str]) -> bool:
    """Whether a device has instructions for bf16: AVX512-BF16 or AMX, or a GPU's.

    Args:
        device: The training device.
        instruction_sets: Those of the processor, see `devices.machine.instruction_sets`.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return not _BF16_SETS.isdisjoint(instruction_sets)


def choose_computation(
    settings: PretrainSettings,
    space: SearchSpace,
    device: torch.device,
    instruction_sets: Collection[str],
) -> Choice:
    """The fastest computation among those that the settings leave open, by timed steps.

    The usual one is kept where no other is more than a tenth faster, so that equal trainings on
    equal machines choose alike. There are no words where nothing is left open.
    """
    usual = as_given(settings)
    precisions, formats = [usual.precision], [usual.memory_format]
    lacks = f"this {_KINDS[device.type]} has no instructions for bf16"
    has = computes_bf16(device, instruction_sets)
    if settings.precision == AUTO:
        precisions = ["fp32", "bf16"] if has else ["fp32"]
    elif settings.precision == "bf16" and not has:
        return Choice(usual, f"warning: computes in {usual}, but {lacks}: far slower than fp32")
    if settings.memory_format == AUTO:
        formats = list(MEMORY_FORMATS)
    candidates = [Computation(each, order) for each in precisions for order in formats]
    why = f" ({lacks})" if settings.precision == AUTO and not has else ""
    if len(candidates) == 1:
        return Choice(usual, f"computes in {usual}{why}" if why else "")
    times_s = step_times_s(space, candidates, _images(settings, space, device), device)
    best = min(candidates, key=lambda each: times_s[each])
    chosen = best if times_s[best] < _MARGIN * times_s[usual] else usual
    ratios = {each: times_s[each] / times_s[chosen] for each in candidates if each != chosen}
    others = ", ".join(
        f"{each} {ratio:.2f} times as long" if math.isfinite(ratio) else f"{each} too much memory"
        for each, ratio in ratios.items()
    )
    return Choice(chosen, f"computes in {chosen}{why}; timed steps of others took: {others}")


def step_times_s(
    space: SearchSpace, candidates: Sequence[Computation], images: int, device: torch.device
) -> dict[Computation, float]:
    """Least seconds of a forward and a backward pass of both ends of a space, taken in turn.

    Infinite for a candidate that exceeds the device's memory.
    """
    times_s = dict.fromkeys(candidates, math.inf)
    resolution = space.largest.resolution
    with torch.random.fork_rng(devices=[]):
        supernet = Supernet(space).train()
        pixels = torch.randn(images, space.in_channels, resolution, resolution)
    try:
        supernet, pixels = supernet.to(device), pixels.to(device)
    except torch.cuda.OutOfMemoryError:
        return times_s
    begun = time.perf_counter()
    for number in range(1 + _ROUNDS):
        for candidate in candidates:
            order = MEMORY_FORMATS[candidate.memory_format]
            supernet.to(memory_format=order)
            ordered = pixels.contiguous(memory_format=order)
            try:
                start = _now(device)
                for end in (space.largest, space.smallest):
                    supernet.activate(end)
                    with autocast(device, candidate.precision):
                        features = supernet(ordered)
                    features.float().square().mean().backward()
                duration_s = _now(device) - start
            except torch.cuda.OutOfMemoryError:
                duration_s = math.inf
            supernet.zero_grad(set_to_none=True)
            if number > 0:  # the first round warms up
                times_s[candidate] = min(times_s[candidate], duration_s)
        if number == 0:
            begun = time.perf_counter()
        elif number >= _LEAST_ROUNDS and time.perf_counter() - begun > _ENOUGH_S:
            break
    return times_s


def _images(settings: PretrainSettings, space: SearchSpace, device: torch.device) -> int:
    """Images of a timed step: those of a pass, as far as it stays short."""
    each = 3 * (space.macs(space.largest) + space.macs(space.smallest))
    in_a_pass = settings.batch_size // (settings.accumulation * distributed.world_size())
    return min(in_a_pass, max(_FEWEST, int(_MACS[device.type] // each)))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
