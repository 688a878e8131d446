"""The search space family `resnet`: residual networks of elastic width, depth and resolution."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from edgesearch.errors import SpaceError
from edgesearch.space.architecture import Architecture
from edgesearch.space.block import BOTTLENECK_EXPANSION, Block

STEMS = ("imagenet", "small")
BLOCKS = ("basic", "bottleneck")


@dataclass(frozen=True)
class ResNetSpace:
    """All residual networks whose widths, depths and resolution are drawn from given choices.

    The first block of each stage has a projection shortcut; it halves the image from the second
    stage on. Architectures are numbered from 0 to `size` - 1, the resolution varying slowest
    and the depth of the last stage fastest.

    Source: DATA (CVPR 2022), section 3.1, whose space is `resnet50to101`.

    Attributes:
        name: Name of the space.
        block: "basic" or "bottleneck".
        stem: "imagenet" (7×7 of stride 2, max-pooling) or "small" (3×3).
        stem_stride: Stride of a small stem; that of the ImageNet stem is 2.
        stem_widths: Choices for the channels of the stem.
        stage_widths: For each stage the choices for its width.
        stage_depths: For each stage the choices for its number of blocks.
        resolutions: Choices for height and width of the input, in pixels.
        in_channels: Channels of the input images.
    """

    name: str
    block: str
    stem: str
    stem_widths: tuple[int, ...]
    stage_widths: tuple[tuple[int, ...], ...]
    stage_depths: tuple[tuple[int, ...], ...]
    resolutions: tuple[int, ...]
    stem_stride: int = 2
    in_channels: int = 3
    family: str = "resnet"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpaceError: With all faults at once.
        """
        faults = list(self._faults())
        if faults:
            raise SpaceError(
                f"the search space {self.name!r} needs valid choices",
                "; ".join(faults),
                "Correct these entries of the space.",
            )

    def _faults(self) -> Iterator[str]:
        if self.block not in BLOCKS:
            yield f"block {self.block!r} (one of {', '.join(BLOCKS)})"
        if self.stem not in STEMS:
            yield f"stem {self.stem!r} (one of {', '.join(STEMS)})"
        if self.stem_stride not in (1, 2) or (self.stem == "imagenet" and self.stem_stride != 2):
            yield f"stem_stride {self.stem_stride} (1 or 2; 2 with the imagenet stem)"
        if self.in_channels not in (1, 3):
            yield f"in_channels {self.in_channels} (1 or 3)"
        if not self.stage_widths or len(self.stage_widths) != len(self.stage_depths):
            yield (
                f"{len(self.stage_widths)} entries in stage_widths and {len(self.stage_depths)} "
                "in stage_depths (one of each for every stage)"
            )
        for name, choices in self.choices.items():
            if not _rising(choices):
                shown = list(choices) if isinstance(choices, tuple) else choices
                yield f"{name} {shown} (a list of rising whole numbers from 1 on)"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResNetSpace:
        """Make a space from plain values, as they stand in YAML.

        Raises:
            SpaceError: A field is missing, unknown or not valid.
        """
        known = {field.name for field in fields(cls)}
        required = known - {"stem_stride", "in_channels", "family"}
        unknown, missing = sorted(set(values) - known), sorted(required - set(values))
        if unknown or missing:
            raise SpaceError(
                f"a resnet space has the fields {', '.join(sorted(known))}",
                "; ".join(
                    f"{what} {', '.join(names)}"
                    for what, names in (("unknown", unknown), ("missing", missing))
                    if names
                ),
                "Correct the definition of the space.",
            )
        try:
            return cls(**{name: _frozen(value) for name, value in values.items()})
        except TypeError as error:
            raise SpaceError(
                "widths, depths and resolutions of a space are lists of whole numbers",
                str(error),
                "Write them as lists; for stages, one list a stage.",
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @cached_property
    def space_hash(self) -> str:
        """16 hexadecimal digits over everything but the name."""
        values = {k: v for k, v in self.to_dict().items() if k != "name"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def choices(self) -> dict[str, tuple[int, ...]]:
        """Each dimension of the space with its choices, in the order of the numbering."""
        return {
            "resolution": self.resolutions,
            "stem_width": self.stem_widths,
            **{f"stage{i}_width": widths for i, widths in enumerate(self.stage_widths, 1)},
            **{f"stage{i}_depth": depths for i, depths in enumerate(self.stage_depths, 1)},
        }

    @property
    def expansion(self) -> int:
        """Output channels of a block divided by its width."""
        return BOTTLENECK_EXPANSION if self.block == "bottleneck" else 1

    @property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(choices) for choices in self.choices.values())

    @property
    def largest(self) -> Architecture:
        """The architecture with every choice at its largest."""
        return self.from_choices({name: max(values) for name, values in self.choices.items()})

    @property
    def smallest(self) -> Architecture:
        """The architecture with every choice at its smallest."""
        return self.from_choices({name: min(values) for name, values in self.choices.items()})

    def from_choices(self, chosen: Mapping[str, int]) -> Architecture:
        """The architecture of one choice for each dimension."""
        stages = range(1, len(self.stage_widths) + 1)
        return Architecture(
            stem_width=chosen["stem_width"],
            stage_widths=tuple(chosen[f"stage{i}_width"] for i in stages),
            stage_depths=tuple(chosen[f"stage{i}_depth"] for i in stages),
            resolution=chosen["resolution"],
        )

    def to_choices(self, architecture: Architecture) -> dict[str, int]:
        """The choice for each dimension, inverse of `from_choices`."""
        chosen = {"resolution": architecture.resolution, "stem_width": architecture.stem_width}
        for i, width in enumerate(architecture.stage_widths, 1):
            chosen[f"stage{i}_width"] = width
        for i, depth in enumerate(architecture.stage_depths, 1):
            chosen[f"stage{i}_depth"] = depth
        return chosen

    def index(self, architecture: Architecture) -> int:
        """The number of an architecture.

        Raises:
            SpaceError: It is not of this space.
        """
        chosen = self.to_choices(architecture)
        remedy = "Choose an architecture of the space, or the space that holds it."
        if set(chosen) != set(self.choices):
            stages = f"widths and depths of {len(self.stage_widths)} stages"
            raise SpaceError(f"the space {self.name!r} has {stages}", f"{architecture}", remedy)
        number = 0
        for name, values in self.choices.items():
            if chosen[name] not in values:
                allowed = f"the space {self.name!r} allows {name} {list(values)}"
                raise SpaceError(allowed, f"{chosen[name]} in {architecture}", remedy)
            number = number * len(values) + values.index(chosen[name])
        return number

    def architecture(self, index: int) -> Architecture:
        """The architecture of a number; inverse of `index`.

        Raises:
            IndexError: The number is not in 0 … `size` - 1.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"architecture {index} of {self.size}")
        chosen = {}
        for name, values in reversed(self.choices.items()):
            index, digit = divmod(index, len(values))
            chosen[name] = values[digit]
        return self.from_choices(chosen)

    def __iter__(self) -> Iterator[Architecture]:
        return (self.architecture(index) for index in range(self.size))

    def __contains__(self, architecture: Architecture) -> bool:
        try:
            self.index(architecture)
        except SpaceError:
            return False
        return True

    def sample(self, rng: random.Random) -> Architecture:
        """An architecture drawn uniformly."""
        return self.architecture(rng.randrange(self.size))

    def mutate(
        self, architecture: Architecture, rng: random.Random, probability: float
    ) -> Architecture:
        """Draw each dimension anew with the given probability (it may fall on the same value)."""
        chosen = self.to_choices(architecture)
        for name, values in self.choices.items():
            if rng.random() < probability:
                chosen[name] = rng.choice(values)
        return self.from_choices(chosen)

    def stem_block(self, width: int, resolution: int) -> Block:
        """The stem of a given width."""
        return Block(
            f"stem_{self.stem}", self.in_channels, width, width, self.stem_stride, resolution
        )

    def stage_blocks(
        self, stage: int, in_channels: int, width: int, depth: int, hw: int
    ) -> tuple[Block, ...]:
        """The blocks of a stage (counted from 0) that gets (in_channels, hw, hw)."""
        out_channels = width * self.expansion
        first = Block(
            self.block, in_channels, width, out_channels, 1 if stage == 0 else 2, hw, True
        )
        rest = Block(self.block, out_channels, width, out_channels, 1, first.out_hw)
        return (first,) + (rest,) * (depth - 1)

    def head_block(self, last: Block) -> Block:
        """The head behind a given block."""
        channels = last.out_channels
        return Block("head", channels, channels, channels, 1, last.out_hw)

    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """The blocks of an architecture from the stem to the head, in order."""
        blocks = [self.stem_block(architecture.stem_width, architecture.resolution)]
        stages = zip(architecture.stage_widths, architecture.stage_depths, strict=True)
        for stage, (width, depth) in enumerate(stages):
            last = blocks[-1]
            blocks += self.stage_blocks(stage, last.out_channels, width, depth, last.out_hw)
        return (*blocks, self.head_block(blocks[-1]))

    def macs(self, architecture: Architecture) -> int:
        """Multiply-accumulates for one image."""
        return sum(block.macs for block in self.blocks(architecture))

    def params(self, architecture: Architecture) -> int:
        """Learnable parameters, without a classifier."""
        return sum(block.params for block in self.blocks(architecture))

    def feature_dim(self, architecture: Architecture) -> int:
        """Length of the feature vector."""
        return architecture.stage_widths[-1] * self.expansion

    def distinct_blocks(self, resolution: int) -> tuple[Block, ...]:
        """Every block that some architecture of a resolution needs, each once."""
        found: dict[str, Block] = {}

        def note(block: Block) -> float:
            found.setdefault(block.key, block)
            return 0.0

        self._sum_at(resolution, note)
        return tuple(found.values())

    def sum_over_blocks(self, cost: Callable[[Block], float]) -> np.ndarray:
        """Add up a cost over the blocks of every architecture, all at once.

        Args:
            cost: The cost of a block; called once for each distinct block of a resolution.

        Returns:
            (size,) float64, in the order of the numbering.
        """
        return np.concatenate([self._sum_at(resolution, cost) for resolution in self.resolutions])

    def max_over_blocks(self, cost: Callable[[Block], float]) -> np.ndarray:
        """The highest cost, from 0 on, among the blocks of every architecture; see above."""
        return np.concatenate(
            [self._fold_at(size, cost, np.maximum, np.sign) for size in self.resolutions]
        )

    def _sum_at(self, resolution: int, cost: Callable[[Block], float]) -> np.ndarray:
        """`sum_over_blocks` for one resolution: (size / number of resolutions,)."""
        return self._fold_at(resolution, cost, np.add, lambda repeats: repeats)

    def _fold_at(
        self,
        resolution: int,
        cost: Callable[[Block], float],
        fold: np.ufunc,
        factor: Callable[[np.ndarray], np.ndarray],
    ) -> np.ndarray:
        """Fold a cost over the blocks; `factor` is what equal blocks cost, by their number."""
        widths, depths = self.stage_widths, self.stage_depths
        shape = tuple(map(len, (self.stem_widths, *widths, *depths)))
        stems = [self.stem_block(width, resolution) for width in self.stem_widths]
        total = fold(np.zeros(shape), _along([cost(stem) for stem in stems], 0, shape))
        before = stems
        for stage, stage_widths in enumerate(widths):
            pairs = [
                [self.stage_blocks(stage, b.out_channels, w, 2, b.out_hw) for w in stage_widths]
                for b in before
            ]
            first = np.array([[cost(blocks[0]) for blocks in row] for row in pairs])
            total = fold(total, first.reshape(
                [len(before) if a == stage else len(stage_widths) if a == stage + 1 else 1
                 for a in range(len(shape))]
            ))  # fmt: skip
            rests = [blocks[1] for blocks in pairs[0]]
            if max(depths[stage]) > 1:
                repeats = np.array(depths[stage]) - 1
                more = np.outer([cost(rest) for rest in rests], factor(repeats))
                more[:, repeats == 0] = 0  # also where the cost is not a number
                axes = (stage + 1, len(widths) + 1 + stage)
                total = fold(
                    total, more.reshape([n if a in axes else 1 for a, n in enumerate(shape)])
                )
            before = rests
        heads = [cost(self.head_block(last)) for last in before]
        total = fold(total, _along(heads, len(widths), shape))
        return np.asarray(total).ravel()


def _along(values: list[float], axis: int, shape: tuple[int, ...]) -> np.ndarray:
    """`values` as an array that broadcasts along all axes of `shape` but one."""
    return np.array(values).reshape([n if a == axis else 1 for a, n in enumerate(shape)])


def _rising(choices: Any) -> bool:
    """Whether this is a tuple, not empty, of rising whole numbers from 1 on."""
    if not isinstance(choices, tuple) or not choices:
        return False
    whole = all(type(choice) is int and choice >= 1 for choice in choices)
    return whole and list(choices) == sorted(set(choices))


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
