"""Describes the faults of a configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from devices.values import did_you_mean, in_yaml
from edgesearch.settings import FORM, Settings


def describe_faults(
    error: ValidationError, schema: type[Settings], written: Mapping[tuple[str, ...], str]
) -> list[str]:
    """One line for each fault: the path of the key, what is required and what was found.

    Args:
        error: The faults.
        schema: The settings class that was validated.
        written: How values are written in YAML, by key path.
    """
    described = (_describe(details, schema, written) for details in error.errors(include_url=False))
    return [text.removeprefix(": ") for text in described]


def _describe(
    details: ErrorDetails, schema: type[Settings], written: Mapping[tuple[str, ...], str]
) -> str:
    names = tuple(part for part in map(str, details["loc"]) if not part.startswith(FORM))
    path, found = ".".join(names), in_yaml(details["input"])
    if details["type"] == "extra_forbidden":
        return f"{path}: unknown key{_suggestion(path, schema)}"
    if details["type"] == "missing":
        return f"{path}: required, but not given"
    if details["type"] in ("model_type", "model_attributes_type"):
        question = _name_of_section(details["input"], names, schema)
        return f"{path or 'the file'}: must be a section of keys; found: {found}{question}"
    if details["type"] == "fault":
        context = details["ctx"]
        found = found if context["found"] is None else context["found"]
        return f"{path}: {context['required']}; found: {found}. {context['remedy']}".strip(". ")
    if details["type"] in ("path_type", "string_type"):
        source = written.get(names)
        quotes = f". As a text it needs quotes: {names[-1]}: {in_yaml(source)}" if source else ""
        return f"{path}: must be a text; found: {found}{quotes}"
    message = re.sub(r"^\w+ should", "must", details["msg"])
    message = re.sub(r" after validation, not \d+$", "", message)
    if details["type"] in ("list_type", "tuple_type"):
        message = "must be a list, such as [A, B]"
    return f"{path}: {message}; found: {found}"


def kinds_at(schema: type[Settings], names: Sequence[str]) -> set[Any]:
    """Types that the option at a key path allows; a path counts as `str`. Empty if unknown."""
    section = section_at(schema, names[:-1])
    if section is None or names[-1] not in section.model_fields:
        return set()
    return set(_kinds(section.model_fields[names[-1]].annotation))


def _kinds(annotation: Any) -> Iterator[Any]:
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        yield from _kinds(inner[0])
    elif kind in (Union, UnionType):
        for each in inner:
            yield from _kinds(each)
    elif kind is Literal:
        yield from (*map(type, inner), type(None))  # null may stand for a computed choice
    elif kind is list:
        yield from map(list.__class_getitem__, _kinds(inner[0]))
    else:
        yield str if annotation is Path else annotation


def section_at(schema: type[Settings], names: Sequence[str]) -> type[Settings] | None:
    """The settings class of the section at a key path; None if there is none."""
    left = list(names)
    while left:
        field = schema.model_fields.get(left.pop(0))
        inner = None if field is None else next(sections_of(field.annotation), None)
        if field is None or inner is None:
            return None
        if get_origin(field.annotation) is dict:
            del left[:1]  # a name chosen by the user
        schema = inner
    return schema


def sections_of(annotation: Any) -> Iterator[type[Settings]]:
    """The settings classes in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_of(inner)


def _name_of_section(found: Any, names: Sequence[str], schema: type[Settings]) -> str:
    """Where a name belongs that stands in place of its section; empty if it is no name."""
    section, path = section_at(schema, names), ".".join(names)
    known = [] if section is None or not isinstance(found, str) else section.names()
    # In a file, the section cannot be both the text and keys.
    ways = {name: f"{path}.name={name} (in a file: {{name: {name}}})" for name in known}
    question = did_you_mean(found, ways) if ways else ""
    return f". {question}" if question else ""


def _suggestion(path: str, schema: type[Settings]) -> str:
    """Suggest a known key: a similar one in the same section, or the same name elsewhere."""
    *names, key = path.split(".")
    section = section_at(schema, names)
    beside = [] if section is None else list(section.model_fields)
    elsewhere = [path for path in _paths(schema) if path.rpartition(".")[2] == key]
    question = did_you_mean(key, {name: ".".join([*names, name]) for name in beside})
    if not question and elsewhere:
        question = did_you_mean(key, {key: elsewhere[0]})
    if question:
        return f"; {question[0].lower()}{question[1:]}"
    return f"; known here: {', '.join(beside)}" if beside else ""


def _paths(schema: type[Settings], prefix: str = "") -> Iterator[str]:
    """All key paths."""
    for name, field in schema.model_fields.items():
        yield prefix + name
        between = "NAME." if get_origin(field.annotation) is dict else ""
        for inner in sections_of(field.annotation):
            yield from _paths(inner, f"{prefix}{name}.{between}")
