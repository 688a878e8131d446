"""Base class of all settings, and common types of values.

Each room declares its options once, in its `settings.py`: type, default, bounds, unit and one
sentence of documentation. `edgesearch.config.Config` nests these classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError, to_jsonable_python

FORM = "form:"
"""Prefix of the tags of alternative forms of a value; removed from key paths in messages."""

AUTO: Final = "auto"
"""Value of an option that is left to the machine; what was chosen stands in a stage's record."""


class _Mark:
    """A mark on an option, given in its annotation."""


NO_EFFECT = _Mark()
"""Marks an option that changes no result."""
SCORE = _Mark()
"""Marks an option of the search that affects the scores of candidates."""
CALIBRATION = _Mark()
"""Marks an option of the search that affects the features of a recalibrated subnet."""


@dataclass(frozen=True)
class AppliesTo(_Mark):
    """Marks an option, or a section, that has an effect only under a condition.

    Attributes:
        condition: The condition in words, after "unless".
        holds: Whether it holds for a whole configuration.
        item: Number of the item of a list that is meant; None for the whole option.
    """

    condition: str
    holds: Callable[[Any], bool]
    item: int | None = None

    def of(self, path: str, value: Any, default: Any) -> tuple[str, Any, Any]:
        """The path of what is meant, its value and its default."""
        if self.item is None:
            return path, value, default
        return f"{path}[{self.item}]", value[self.item], default[self.item]


TRAINED = AppliesTo("pretrain.epochs is above 0", lambda config: config.pretrain.epochs > 0)
IN_COLOUR = AppliesTo(
    "the space has three channels (space.in_channels)",
    lambda config: config.space.build().in_channels == 3,
)


class Settings(BaseModel):
    """A section of the configuration: rejects unknown keys and converts no types."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    exclusive: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Pairs of mutually exclusive options. On the command line, one replaces the other."""

    @classmethod
    def names(cls) -> list[str]:
        """What edgesearch knows for the key `name` of the section; empty without such names."""
        return []

    def without_effect(self, config: Any) -> list[str]:
        """Given options that have no effect in a configuration, one line for each reason.

        An option that is off (null, false or 0) or has its default needs no word.
        """
        by_reason: dict[str, list[str]] = {}
        for path, condition in self._idle(config, ""):
            by_reason.setdefault(condition, []).append(path)
        return [
            f"{', '.join(paths)} {'has' if len(paths) == 1 else 'have'} no effect unless {reason}"
            for reason, paths in by_reason.items()
        ]

    def _idle(self, config: Any, section: str) -> Iterator[tuple[str, str]]:
        """Paths of given options without effect, each with the first condition that is not met."""
        for name, field in type(self).model_fields.items():
            value, path = getattr(self, name), f"{section}{name}"
            marks = [mark for mark in field.metadata if isinstance(mark, AppliesTo)]
            unmet = (mark for mark in marks if not mark.holds(config))
            for mark in unmet if name in self.model_fields_set else ():
                place, given, usual = mark.of(path, value, field.default)
                if given and given != usual:
                    yield place, mark.condition
                    break
            else:
                if isinstance(value, Settings):
                    yield from value._idle(config, f"{path}.")

    def decisive(self, section: str, mark: _Mark | None = None) -> dict[str, Any]:
        """Options that affect results, by key path: those with `mark`, or all but `NO_EFFECT`."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            marks = field.metadata
            if not (NO_EFFECT not in marks if mark is None else mark in marks):
                continue
            if isinstance(value, Settings):
                found |= value.decisive(f"{section}.{name}")
            else:
                found[f"{section}.{name}"] = to_jsonable_python(value)
        return found

    @field_validator("*")
    @classmethod
    def _one_of_a_pair(cls, value: Any, info: ValidationInfo) -> Any:
        for first, second in cls.exclusive:
            if info.field_name == second and None not in (value, info.data.get(first)):
                raise fault(f"either {first} or {second} is required, not both")
        return value


def fault(required: str, found: str | None = None, remedy: str = "") -> PydanticCustomError:
    """The error for a custom check; `load_config` adds the path of the key."""
    context = {"required": required, "found": found, "remedy": remedy}
    return PydanticCustomError("fault", "{required}", context)


def _expanded(path: Any) -> Any:
    """Replace ~ before `Path` drops the ./ of a name that begins with it."""
    if not isinstance(path, str | Path):
        return path
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise fault(
            "a home folder is required for ~", f"none for {path}", f"./{path} is a name like this"
        )
    return expanded


UserPath = Annotated[Path, Field(strict=False), BeforeValidator(_expanded)]
"""A path; relative paths start at the current folder, `~` is the home folder."""

Count = Annotated[int, Field(ge=1)]
Batch = Annotated[int, Field(ge=2)]
"""Number of images; at least 2, since batch normalisation needs more than one."""
CountFromZero = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]


def _rising(shares: tuple[float, float]) -> tuple[float, float]:
    if shares[0] > shares[1]:
        raise fault("the smaller share first is required")
    return shares


CropScale = Annotated[
    tuple[PositiveFraction, PositiveFraction], Field(strict=False), AfterValidator(_rising)
]
"""Smallest and largest area of a crop, as shares of the image's area."""
