"""Architectures: the points of a search space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Architecture(Mapping[str, int]):
    """A subnet, as a mapping from the names of its space's choices (in order) to values.

    `SearchSpace.from_choices` makes one, also from the JSON form `dict(architecture)`. Equal
    choices are equal architectures. `text` is a form such as `stem16_w16-48-96_d2-1-2_r32`.
    """

    choices: tuple[tuple[str, int], ...]
    text: str = field(compare=False)

    @property
    def resolution(self) -> int:
        """Input height and width, in pixels."""
        return self["resolution"]

    @cached_property
    def _values(self) -> dict[str, int]:
        return dict(self.choices)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __str__(self) -> str:
        return self.text
