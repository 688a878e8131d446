"""What the settings of all rooms are made of: the base class and common types of values.

Each room declares its options once, in its `settings.py`: type, default, bounds, unit and one
sentence of documentation. `edgesearch.config.Config` nests these classes.
"""

from __future__ import annotations

import os
from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError, to_jsonable_python

FORM = "form:"
"""Begins the names of the forms that a value may have, which are no part of a key's path."""


class _Mark:
    """Something that is said of an option where it is declared, as part of its annotation."""


NO_EFFECT = _Mark()
"""Marks an option that changes no result: how fast, how often or where something is done."""
SCORE = _Mark()
"""Marks an option of the search that the scores of its candidates depend on."""
CALIBRATION = _Mark()
"""Marks an option of the search that the features of a recalibrated subnet depend on."""


class Settings(BaseModel):
    """A section: unknown keys are refused, and types are not guessed ("3" is no number)."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    exclusive: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Pairs of options of which one at most may be given. On the command line, one of a pair
    replaces the other of the file."""

    def decisive(self, section: str, mark: _Mark | None = None) -> dict[str, Any]:
        """The options that a result depends on, in plain values by the paths of their keys.

        Args:
            section: Path of this section.
            mark: Only options with this mark; all but those marked `NO_EFFECT` if None.
        """
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if not _counts(field.metadata, mark):
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


def _counts(metadata: Container[Any], mark: _Mark | None) -> bool:
    return NO_EFFECT not in metadata if mark is None else mark in metadata


def fault(required: str, found: str | None = None, remedy: str = "") -> PydanticCustomError:
    """The error for a check of our own; `load_config` adds the path of the key.

    Args:
        required: What was required.
        found: What was found; the value of the key if None.
        remedy: What to do, as a sentence.
    """
    context = {"required": required, "found": found, "remedy": remedy}
    return PydanticCustomError("fault", "{required}", context)


def _expand_home(path: Path) -> Path:
    return Path(os.path.expanduser(path))


UserPath = Annotated[Path, Field(strict=False), AfterValidator(_expand_home)]
"""A path; relative ones start at the current folder, `~` is the home folder."""

Count = Annotated[int, Field(ge=1)]
"""A whole number from 1 on."""

Batch = Annotated[int, Field(ge=2)]
"""A number of images from 2 on: batch normalisation has no statistics of a single one."""

CountFromZero = Annotated[int, Field(ge=0)]
"""A whole number from 0 on."""

Positive = Annotated[float, Field(gt=0)]
"""A number above 0."""

NotNegative = Annotated[float, Field(ge=0)]
"""A number from 0 on."""

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""

PositiveFraction = Annotated[float, Field(gt=0, le=1)]
"""A number above 0 and up to 1."""
