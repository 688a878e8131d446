"""YAML to plain values, with duplicate keys reported and `1e-3` read as a number."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_EXPONENT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+")


class _Loader(yaml.SafeLoader):
    """A safe loader that reads `1e-3` as a number and records duplicate keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.faults: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Record duplicate keys, of which YAML silently keeps the last."""
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key in lines:
                self.faults.append(f"{key}: given twice, in lines {lines[key]} and {line}")
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


@dataclass(frozen=True)
class Parsed:
    """A YAML document.

    Attributes:
        values: Its values.
        faults: Duplicate keys, described.
        written: How values of one line are written, by key path.
    """

    values: Any
    faults: list[str]
    written: dict[tuple[str, ...], str]


def parse_yaml(text: str, *, texts: bool = False) -> Parsed:
    """Read one YAML document.

    Args:
        text: The document.
        texts: Whether every scalar is a text, whatever it looks like.

    Raises:
        ValueError: The text is not valid YAML; the message gives line and column where known.
    """
    try:
        loader = _Loader(text)
        if texts:
            loader.yaml_implicit_resolvers = {}
        node = loader.get_single_node()
        values = None if node is None else loader.construct_document(node)
        return Parsed(values, loader.faults, dict(_written(node, text, (), set())))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _written(
    node: yaml.Node | None, text: str, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The source of each value of one line, by key path; aliases are left out."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    source = text[node.start_mark.index : node.end_mark.index]
    if "\n" not in source:
        yield path, source
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _written(value, text, (*path, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _written(value, text, (*path, str(number)), seen)
