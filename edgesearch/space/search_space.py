"""The interface of a search space: numbering, sampling and sums over blocks."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import operator
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from devices.values import did_you_mean, in_yaml
from edgesearch.errors import SpaceError
from edgesearch.space.architecture import Architecture
from edgesearch.space.block import Block, Part

if TYPE_CHECKING:
    from edgesearch.space.network import Layers, Network

LIMIT = 10_000_000
"""Spaces with more architectures are never enumerated."""
MOST_BLOCKS = 1000
"""Most blocks in the stages of a network: far more than those that people train have."""
MOST_SETTINGS = 1_000_000
"""Most settings of a part's choices, all of which are laid out."""
SHORT = 6
"""Most values that `in_yaml` shows of a list."""


@dataclass(frozen=True)
class _Run:
    """A run of equal blocks, for every setting of the choices that decide its part.

    `axes` are the positions of these choices in the space, the resolution first. `blocks` and
    `counts`, with one axis per choice, hold the index of the distinct block (-1 for none) and the
    length of the run.
    """

    axes: tuple[int, ...]
    blocks: np.ndarray
    counts: np.ndarray


class SearchSpace(ABC):
    """All networks of a family whose choices take given values.

    A family's space is a frozen dataclass that declares its fields, `own_choices`, `parts`,
    `text_form`, `faults` and `make_network`; everything else follows. `reads_public_weights` names
    ("module:function") what finds a network of the family in a checkpoint's tensors by name, as
    `PublicWeights`, or returns None.

    Architectures are numbered from 0 to `size` - 1, the last choice varying fastest. An
    architecture is also a row of digits: the index of each choice's value. Arrays of digits (n, d)
    work for spaces of any size; methods that enumerate the space refuse more than `LIMIT`
    architectures.

    Attributes:
        name: Name of the space.
        family: Name of the family.
        resolutions: Choices of input height and width, in pixels.
        in_channels: Channels of the input images, 1 or 3.

    Raises:
        SpaceError: Fields are not valid; names all faults.
    """

    name: str
    family: str
    resolutions: tuple[int, ...]
    in_channels: int
    __dataclass_fields__: ClassVar[dict[str, Any]]
    reads_public_weights: ClassVar[str | None] = None

    # What a family declares.

    @property
    @abstractmethod
    def own_choices(self) -> dict[str, tuple[int, ...]]:
        """The values of each choice except the resolution; must not fail on faulty values.

        The number of blocks of a stage has "depth" in its name.
        """

    @property
    @abstractmethod
    def parts(self) -> Sequence[Part]:
        """The parts of a network in order, from images to features."""

    @property
    @abstractmethod
    def text_form(self) -> dict[str, tuple[str, ...]]:
        """The text form of architectures: a prefix, and the choices whose values follow it.

        `{"w": ("width1", "width2"), "r": ("resolution",)}` gives texts such as `w8-16_r32`.
        """

    @abstractmethod
    def faults(self) -> Iterator[str]:
        """Descriptions of faults in the family's own fields, choices excluded."""

    @abstractmethod
    def make_network(self, blocks: Sequence[Any], layers: Layers | None = None) -> Network:
        """A network of these blocks with initial weights; plain layers if None; imports torch."""

    def least(self, choice: str) -> int:
        """The smallest value that a choice may have."""
        return 1

    def notices(self) -> Iterator[str]:
        """What a user should know of valid choices."""
        return iter(())

    # Fields.

    def __post_init__(self) -> None:
        faults = list(self._faults_of_form()) or [*self.faults(), *self._faults_of_choices()]
        if not is_one_of(self.in_channels, (1, 3)):
            faults.append(f"in_channels {in_yaml(self.in_channels)} (1 or 3)")
        if faults:
            raise SpaceError(
                f"the search space {self.name!r} needs valid choices",
                "; ".join(faults),
                "Correct these entries of the space.",
            )
        self._refuse_parts_of_many_settings()

    def _faults_of_form(self) -> Iterator[str]:
        """Fields that have to be lists and are not."""
        for field in fields(type(self)):
            value, kind = getattr(self, field.name), str(field.type)
            if "tuple" not in kind:
                continue
            lists, form = [value], "a list of integers"
            if "tuple[tuple" in kind:
                form = "a list of lists, one for each stage"
                lists += value if isinstance(value, tuple) else []
            if not all(isinstance(each, tuple) for each in lists):
                yield f"{field.name} {in_yaml(value)} ({form})"

    def written(self, choice: str) -> str:
        """Where the user writes a choice: `head_widths`, or the entry of a stage."""
        stage = re.fullmatch(r"stage(\d+)_(\w+)", choice)
        name = f"stage_{stage[2]}s" if stage else f"{choice}s"
        if name not in {field.name for field in fields(type(self))}:
            return choice
        return f"entry {stage[1]} of {name}" if stage else name

    def _faults_of_choices(self) -> Iterator[str]:
        depths: list[int] = []
        for name, values in self.choices.items():
            least = self.least(name)
            if rising(values, least):
                depths += values[-1:] if "depth" in name else []
                continue
            needed = "increasing positive integers" if least else "increasing integers from 0"
            if isinstance(values, tuple) and len(values) > SHORT:
                wrong = next(n for n in range(len(values)) if not rising(values[: n + 1], least))
                needed += f"; entry {wrong + 1} is {in_yaml(values[wrong])}"
            yield f"{self.written(name)} {in_yaml(values)} (a list of {needed})"
        if sum(depths) > MOST_BLOCKS:
            yield (
                f"up to {sum(depths):,} blocks in the stages of a network (at most "
                f"{MOST_BLOCKS:,}: smaller depths)"
            )

    def _refuse_parts_of_many_settings(self) -> None:
        for part in self.parts:
            counts = {name: len(self.choices[name]) for name in ("resolution", *part.choices)}
            settings = math.prod(counts.values())
            if settings > MOST_SETTINGS:
                most = sorted(counts, key=counts.__getitem__)[:-3:-1]
                raise SpaceError(
                    f"a search space with at most {MOST_SETTINGS:,} settings of the choices that "
                    "decide the blocks of a stage, as all these blocks are laid out",
                    f"{settings:,} in {self.name!r}: "
                    + " × ".join(
                        f"{count:,} of {self.written(name)}" for name, count in counts.items()
                    ),
                    f"Choose fewer values in {' or '.join(map(self.written, most))}.",
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpace:
        """The space of plain values, as in YAML.

        Raises:
            SpaceError: A field is missing, unknown or not valid.
        """
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        unknown, missing = sorted(set(values) - known), sorted(required - set(values))
        if unknown or missing:
            raise SpaceError(
                f"a {values.get('family')} space has the fields {', '.join(sorted(known))}",
                "; ".join(
                    f"{what} {', '.join(names)}"
                    for what, names in (("unknown", unknown), ("missing", missing))
                    if names
                ),
                did_you_mean(
                    unknown[0] if unknown else "", known, "Correct the definition of the space."
                ),
            )
        return cls(**{name: _frozen(value) for name, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """The space as plain values, without fields that are None."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return json.loads(json.dumps(values))

    @property
    def form(self) -> dict[str, Any]:
        """Fields that are no choices, so that all networks of the space have them."""
        single = {field.name: getattr(self, field.name) for field in fields(type(self))}
        return {k: v for k, v in single.items() if k != "name" and not isinstance(v, tuple)}

    @cached_property
    def space_hash(self) -> str:
        """16 hexadecimal digits over everything except the name."""
        values = {k: v for k, v in self.to_dict().items() if k != "name"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    # Architectures.

    @cached_property
    def choices(self) -> dict[str, tuple[int, ...]]:
        """The values of each choice in the order of the numbering, the resolution first."""
        return {"resolution": self.resolutions, **self.own_choices}

    @cached_property
    def size(self) -> int:
        """Number of architectures."""
        return math.prod(len(values) for values in self.choices.values())

    @cached_property
    def largest(self) -> Architecture:
        """The architecture with the largest value of every choice."""
        return self._make({name: values[-1] for name, values in self.choices.items()})

    @cached_property
    def smallest(self) -> Architecture:
        """The architecture with the smallest value of every choice."""
        return self._make({name: values[0] for name, values in self.choices.items()})

    def from_choices(self, chosen: Any) -> Architecture:
        """The architecture of a mapping from choices to values (its JSON form).

        Raises:
            SpaceError: The value is no such mapping, or the architecture is not in the space; the
                message names each wrong value and the nearest architecture.
        """
        if not isinstance(chosen, Mapping) or set(chosen) != set(self.choices):
            raise SpaceError(
                f"an architecture of the space {self.name!r}, with {', '.join(self.choices)}",
                str(list(chosen)) if isinstance(chosen, Mapping) else repr(chosen),
                f"Correct the entry, or copy one from winners.json, such as {dict(self.largest)}.",
            )
        faults, nearest = [], {}
        for name, values in self.choices.items():
            value = chosen[name]
            if type(value) is int:
                nearest[name] = min(values, key=lambda near: (abs(near - value), near))  # noqa: B023
            else:
                nearest[name] = values[-1]
            if type(value) is not int or value != nearest[name]:
                faults.append(f"{name} {value!r} (one of {', '.join(map(str, values))})")
        if faults:
            raise SpaceError(
                f"an architecture of the space {self.name!r}",
                f"{'; '.join(faults)} in {self._text(chosen)}",
                f"The nearest is {self._text(nearest)}.",
            )
        return self._make(chosen)

    def from_text(self, text: str) -> Architecture:
        """The architecture of a text such as `stem16_w16-48-96_d2-1-2_r32`.

        Raises:
            SpaceError: The text has another form, or the architecture is not in the space.
        """
        pattern = "_".join(
            letters + "-".join([r"(\d+)"] * len(names)) for letters, names in self.text_form.items()
        )
        found = re.fullmatch(pattern, text.strip(), re.ASCII)
        if found is None:
            raise SpaceError(
                f"an architecture of the space {self.name!r}, in the form {self.largest}",
                repr(text),
                "Copy one from what `edgesearch search` or `edgesearch validate` prints.",
            )
        names = itertools.chain(*self.text_form.values())
        return self.from_choices(dict(zip(names, map(int, found.groups()), strict=True)))

    def _text(self, chosen: Mapping[str, int]) -> str:
        return "_".join(
            letters + "-".join(str(chosen[name]) for name in names)
            for letters, names in self.text_form.items()
        )

    def _make(self, chosen: Mapping[str, int]) -> Architecture:
        values = tuple((name, chosen[name]) for name in self.choices)
        return Architecture(values, self._text(chosen))

    def __contains__(self, architecture: Architecture) -> bool:
        return dict(architecture).keys() == self.choices.keys() and all(
            architecture[name] in values for name, values in self.choices.items()
        )

    def index(self, architecture: Architecture) -> int:
        """The index of an architecture.

        Raises:
            SpaceError: The architecture is not in the space.
        """
        number = 0
        if architecture not in self:
            self.from_choices(architecture)  # raises
        for name, values in self.choices.items():
            number = number * len(values) + values.index(architecture[name])
        return number

    def architecture(self, index: int) -> Architecture:
        """The architecture of an index; inverse of `index`.

        Raises:
            IndexError: The index is not in 0 … `size` - 1.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"architecture {index} of {self.size}")
        chosen = {}
        for name, values in reversed(self.choices.items()):
            index, digit = divmod(index, len(values))
            chosen[name] = values[digit]
        return self._make(chosen)

    def __iter__(self) -> Iterator[Architecture]:
        """All architectures in order; refuses more than `LIMIT`."""
        self._refuse_if_large()
        return (self.architecture(index) for index in range(self.size))

    def to_digits(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """Digits (n, d) int64 of architectures."""
        rows = [
            [values.index(architecture[name]) for name, values in self.choices.items()]
            for architecture in architectures
        ]
        return np.array(rows, np.int64).reshape(len(rows), len(self.choices))

    def from_digits(self, digits: Sequence[int] | np.ndarray) -> Architecture:
        """The architecture of one row of digits (d,)."""
        pairs = zip(self.choices.items(), digits, strict=True)
        return self._make({name: values[int(digit)] for (name, values), digit in pairs})

    def sample(self, rng: random.Random) -> Architecture:
        """A uniformly drawn architecture."""
        return self.architecture(rng.randrange(self.size))

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Digits (count, d) of uniformly drawn architectures, with replacement."""
        lengths = [len(values) for values in self.choices.values()]
        return rng.integers(0, lengths, (count, len(lengths)))

    def mutate(
        self, architecture: Architecture, rng: random.Random, probability: float
    ) -> Architecture:
        """Redraw each choice with the given probability (the draw may repeat the value)."""
        chosen = dict(architecture)
        for name, values in self.choices.items():
            if rng.random() < probability:
                chosen[name] = rng.choice(values)
        return self._make(chosen)

    def neighbours(self, digits: Sequence[int] | np.ndarray) -> np.ndarray:
        """Digits (m, d) of all architectures that differ from (d,) in one choice."""
        rows = []
        for axis, values in enumerate(self.choices.values()):
            for digit in range(len(values)):
                if digit != digits[axis]:
                    rows.append([*digits[:axis], digit, *digits[axis + 1 :]])
        return np.array(rows, np.int64).reshape(len(rows), len(self.choices))

    # Blocks.

    def by_beginning(self, architectures: Iterable[Architecture]) -> list[Architecture]:
        """Sort architectures such that equal first blocks are adjacent."""
        names = dict.fromkeys(("resolution", *(name for p in self.parts for name in p.choices)))
        return sorted(architectures, key=operator.itemgetter(*names))

    @property
    def stages(self) -> list[str]:
        """Names of the stages."""
        return [part.stage for part in self.parts if part.stage is not None]

    def blocks_of_parts(self, architecture: Architecture) -> list[tuple[Block, ...]]:
        """The blocks of each part of an architecture."""
        resolution = architecture.resolution
        return [
            tuple(part.blocks(resolution, *(architecture[name] for name in part.choices)))
            for part in self.parts
        ]

    def blocks(self, architecture: Architecture) -> tuple[Block, ...]:
        """The blocks of an architecture from images to features."""
        return tuple(itertools.chain(*self.blocks_of_parts(architecture)))

    def stage_blocks(self, architecture: Architecture) -> dict[str, tuple[Block, ...]]:
        """The blocks of each stage by name."""
        blocks = zip(self.parts, self.blocks_of_parts(architecture), strict=True)
        return {part.stage: own for part, own in blocks if part.stage is not None}

    def grid(self, stage: int) -> int:
        """Height of the maps of a stage, counted from 1, of the largest network."""
        return list(self.stage_blocks(self.largest).values())[stage - 1][-1].out_shape[-1]

    def macs(self, architecture: Architecture) -> int:
        """Multiply-accumulates per image."""
        return sum(block.macs for block in self.blocks(architecture))

    def params(self, architecture: Architecture) -> int:
        """Learnable parameters, without classifier."""
        return sum(block.params for block in self.blocks(architecture))

    def feature_dim(self, architecture: Architecture) -> int:
        """Length of the feature vector."""
        return self.blocks(architecture)[-1].out_shape[0]

    def distinct_blocks(self, resolution: int | None = None) -> tuple[Block, ...]:
        """The distinct blocks of all architectures (of one resolution, if given)."""
        blocks, runs = self._runs
        if resolution is None:
            return blocks
        at = self.resolutions.index(resolution)
        numbers = dict.fromkeys(number for run in runs for number in run.blocks[at].flat)
        return tuple(blocks[number] for number in numbers if number >= 0)

    def sums(
        self, cost: Callable[[Block], float], highest: bool = False
    ) -> Callable[[np.ndarray | None], np.ndarray]:
        """A function that sums a cost over the blocks of many architectures at once.

        Args:
            cost: Cost of a block; called here, once per distinct block.
            highest: Take the maximum over the blocks (at least 0) instead of the sum.

        Returns:
            Maps digits (n, d) to (n,) float64. None stands for the whole space in index order; more
            than `LIMIT` architectures are then refused.
        """
        blocks, runs = self._runs
        costs = np.array([*map(cost, blocks), 0.0])  # -1 indexes the cost of no block
        tables = [(run.axes, costs[run.blocks] * (1 if highest else run.counts)) for run in runs]
        return self._total_of(tables, np.maximum if highest else np.add)

    def sums_over_parts(
        self, cost: Callable[[int, int, tuple[Block, ...]], float]
    ) -> Callable[[np.ndarray | None], np.ndarray]:
        """A function that sums a cost over the parts of many architectures at once; see `sums`.

        Args:
            cost: Cost of a part, from its number in `parts`, the resolution and its blocks; called
                here, once for every setting of its choices.
        """
        positions = {name: axis for axis, name in enumerate(self.choices)}
        tables = []
        for number, part in enumerate(self.parts):
            names = ("resolution", *part.choices)
            settings = itertools.product(*(self.choices[name] for name in names))
            costs = np.array([cost(number, s[0], tuple(part.blocks(*s))) for s in settings], float)
            shape = [len(self.choices[name]) for name in names]
            tables.append((tuple(positions[name] for name in names), costs.reshape(shape)))
        return self._total_of(tables, np.add)

    def _total_of(
        self, tables: Sequence[tuple[tuple[int, ...], np.ndarray]], fold: np.ufunc
    ) -> Callable[[np.ndarray | None], np.ndarray]:
        """Folds tables of costs, each over the axes of some choices; see `sums`."""
        shape = [len(values) for values in self.choices.values()]

        def total_of(digits: np.ndarray | None) -> np.ndarray:
            if digits is None:
                self._refuse_if_large()
            total = np.zeros(shape if digits is None else len(digits))
            for axes, values in tables:
                if digits is None:
                    along = [length if axis in axes else 1 for axis, length in enumerate(shape)]
                    values = values.transpose(np.argsort(axes)).reshape(along)
                else:
                    values = values[tuple(digits[:, axes].T)]
                fold(total, values, out=total)
            return total.ravel()

        return total_of

    @cached_property
    def _runs(self) -> tuple[tuple[Block, ...], list[_Run]]:
        """The distinct blocks, and all runs of equal blocks from images to features."""
        positions = {name: axis for axis, name in enumerate(self.choices)}
        distinct: dict[str, tuple[int, Block]] = {}
        runs = []
        for part in self.parts:
            names = ("resolution", *part.choices)
            shape = [len(self.choices[name]) for name in names]
            settings = itertools.product(*(self.choices[name] for name in names))
            rows = [
                [(block, len(list(equal))) for block, equal in itertools.groupby(part.blocks(*s))]
                for s in settings
            ]
            for position in range(max(map(len, rows))):
                numbers, counts = np.full(len(rows), -1), np.zeros(len(rows))
                for at, row in enumerate(rows):
                    if position < len(row):
                        block, counts[at] = row[position]
                        number, _ = distinct.setdefault(block.key, (len(distinct), block))
                        numbers[at] = number
                axes = tuple(positions[name] for name in names)
                runs.append(_Run(axes, numbers.reshape(shape), counts.reshape(shape)))
        return tuple(block for _, block in distinct.values()), runs

    def _refuse_if_large(self) -> None:
        if self.size > LIMIT:
            raise SpaceError(
                f"a space of at most {LIMIT:,} architectures, to enumerate them",
                f"{self.size:,} in {self.name!r}",
                "Choose fewer values for its choices.",
            )


def rising(values: Any, least: int = 1) -> bool:
    """Whether this is a non-empty tuple of increasing integers from `least`."""
    if not isinstance(values, tuple) or not values:
        return False
    whole = all(type(value) is int and value >= least for value in values)
    return whole and list(values) == sorted(set(values))


def is_one_of(value: Any, known: Sequence[int]) -> bool:
    """Whether this is one of some integers; `true` and 1.0 equal 1, but are none."""
    return type(value) is int and value in known


def _frozen(value: Any) -> Any:
    """Lists converted to tuples, recursively."""
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
