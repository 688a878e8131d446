"""Describes the faults of a configuration."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

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
    """A value for a message, shortened if it is long."""
    return "nothing (null)" if value is None else _REPR.repr(value)


def section_at(schema: type[Settings], names: Sequence[str]) -> type[Settings] | None:
    """The settings class of the section at a key path; None if there is none."""
    left = list(names)
    while left:
        field = schema.model_fields.get(left.pop(0))
        inner = None if field is None else next(_sections(field.annotation), None)
        if field is None or inner is None:
            return None
        if get_origin(field.annotation) is dict:
            del left[:1]  # a name chosen by the user
        schema = inner
    return schema


def _sections(annotation: Any) -> Iterator[type[Settings]]:
    """The settings classes in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def _suggestion(path: str, schema: type[Settings]) -> str:
    """Suggest a known key: a similar one in the same section, or the same name elsewhere."""
    *names, key = path.split(".")
    section = section_at(schema, names)
    beside = [] if section is None else list(section.model_fields)
    near = difflib.get_close_matches(key, beside, 1)
    elsewhere = [known for known in _paths(schema) if known.rpartition(".")[2] == key]
    if near or elsewhere:
        return f"; did you mean {'.'.join([*names, *near]) if near else elsewhere[0]}?"
    return f"; known here: {', '.join(beside)}" if beside else ""


def _paths(schema: type[Settings], prefix: str = "") -> Iterator[str]:
    """All key paths."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        between = "NAME." if get_origin(field.annotation) is dict else ""
        for inner in _sections(field.annotation):
            yield from _paths(inner, f"{prefix}{name}.{between}")
