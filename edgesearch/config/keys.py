"""The keys of a configuration: kind, bounds, default and meaning, from their one declaration."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from devices.values import did_you_mean, in_yaml
from edgesearch.config.config import Config
from edgesearch.config.faults import sections_of
from edgesearch.errors import ConfigError
from edgesearch.settings import Settings

_BOUNDS = {
    "minimum": "≥ {:g}",
    "exclusiveMinimum": "> {:g}",
    "maximum": "≤ {:g}",
    "exclusiveMaximum": "< {:g}",
}
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
    "object": "section",
}


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        path: Its path, such as "pretrain.epochs".
        kind: What values it takes, with bounds, in words.
        default: Its default in YAML; None if it has to be given.
        meaning: One sentence.
    """

    path: str
    kind: str
    default: str | None
    meaning: str


def keys(prefix: str = "") -> list[Key]:
    """The keys that begin with a path, such as "pretrain" or "search.budgets"; all without one.

    Raises:
        ConfigError: There are none.
    """
    everything = list(_keys(Config, ""))
    wanted = prefix.strip().rstrip(".")
    found = [key for key in everything if key.path == wanted or key.path.startswith(f"{wanted}.")]
    if not wanted:
        return everything
    if not found:  # the beginning of a word
        found = [key for key in everything if key.path.startswith(wanted)]
    if not found:  # a name without its section
        found = [key for key in everything if key.path.rpartition(".")[2].startswith(wanted)]
    if not found:
        words = {key.path.rpartition(".")[2]: key.path for key in reversed(everything)}
        words |= {key.path: key.path for key in everything}
        raise ConfigError(
            "a key of the configuration, or the beginning of one",
            repr(prefix),
            did_you_mean(wanted, words, "`edgesearch keys` lists all."),
        )
    return found


def is_default(path: str, value: Any) -> bool:
    """Whether a key has this value where it is not given; False for what is no key."""
    return any(key.path == path and key.default == in_yaml(value) for key in _keys(Config, ""))


def _keys(schema: type[Settings], before: str) -> Iterator[Key]:
    kinds = schema.model_json_schema()
    for name, field in schema.model_fields.items():
        inner = list(sections_of(field.annotation))
        meaning = " ".join((field.description or inspect.getdoc(schema) or "").split())
        path = f"{before}{name}"
        is_section = inspect.isclass(field.annotation) and issubclass(field.annotation, Settings)
        if not is_section:
            kind = _words(kinds["properties"][name], kinds.get("$defs", {}))
            yield Key(path, kind, _default(field), meaning)
        between = "NAME." if get_origin(field.annotation) is dict else ""
        for section in inner:
            if is_section or between or section.__name__.endswith("Settings"):
                yield from _keys(section, f"{path}.{between}")


def _words(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        return _words(known[schema["$ref"].rpartition("/")[2]], known)
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_words(each, known) for each in schema[several]))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        items: Any = schema.get("items") or next(iter(schema.get("prefixItems", ())), {})
        return f"list of {_words(items, known) if items else 'values'}"
    kind = "path" if schema.get("format") == "path" else _KINDS.get(schema.get("type", ""), "value")
    if kind == "section" and "properties" in schema:
        kind = f"section of {', '.join(schema['properties'])}"
    bounds = [text.format(schema[name]) for name, text in _BOUNDS.items() if name in schema]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined:
        return None
    return re.sub(r"\s+", " ", in_yaml(to_jsonable_python(default)))
