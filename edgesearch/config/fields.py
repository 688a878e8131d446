"""What the sections of a configuration are made of: the base class and common types of value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

FORM = "form:"
"""Begins the names of the forms that a value may have, which are no part of a key's path."""


class Section(BaseModel):
    """A section: unknown keys are refused, and types are not guessed ("3" is no number)."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def fault(required: str, found: str | None = None, remedy: str = "") -> PydanticCustomError:
    """What a check of ours raises; `load_config` adds the key.

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
