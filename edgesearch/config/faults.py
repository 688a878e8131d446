"""What is wrong in a configuration, in words."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterator
from typing import get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edgesearch.settings import FORM, Settings

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def describe_faults(error: ValidationError, schema: type[Settings]) -> list[str]:
    """One line for each fault: the path of the key, what is required and what was found."""
    described = (_describe(details, schema) for details in error.errors(include_url=False))
    return [text.removeprefix(": ") for text in described]


def _describe(details: ErrorDetails, schema: type[Settings]) -> str:
    path = ".".join(part for part in map(str, details["loc"]) if not part.startswith(FORM))
    found = shortened(details["input"])
    if details["type"] == "extra_forbidden":
        return f"{path}: unknown key{_suggestion(path, schema)}"
    if details["type"] == "missing":
        return f"{path}: required, but not given"
    if details["type"] in ("model_type", "model_attributes_type"):
        return f"{path or 'the file'}: must be a section of keys; found: {found}"
    if details["type"] == "fault":
        context = details["ctx"]
        found = found if context["found"] is None else context["found"]
        return f"{path}: {context['required']}; found: {found}. {context['remedy']}".strip(". ")
    if details["type"] == "path_type":
        return f"{path}: must be a path; found: {found}"
    message = re.sub(r"^\w+ should", "must", details["msg"])
    return f"{path}: {message}; found: {found}"


def shortened(value: object) -> str:
    """A value as people can read it in a message, however large it is."""
    return "nothing (null)" if value is None else _REPR.repr(value)


def _suggestion(path: str, schema: type[Settings]) -> str:
    """A known key that may have been meant: beside the unknown one, or of the same name."""
    section, _, key = path.rpartition(".")
    known = list(_paths(schema))
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    near = difflib.get_close_matches(key, beside, 1)
    if near:
        return f"; did you mean {beside[near[0]]}?"
    elsewhere = [name for name in known if name.rpartition(".")[2] == key]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    return f"; known here: {', '.join(beside)}" if beside else ""


def _paths(schema: type[Settings], prefix: str = "") -> Iterator[str]:
    """The paths of all keys."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        for annotation in (field.annotation, *get_args(field.annotation)):
            if isinstance(annotation, type) and issubclass(annotation, Settings):
                yield from _paths(annotation, f"{prefix}{name}.")
