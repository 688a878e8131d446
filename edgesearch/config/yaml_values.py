"""YAML to plain values, with duplicate keys reported and `1e-3` read as a number."""

from __future__ import annotations

import re
from collections.abc import Hashable
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


def parse_yaml(text: str) -> tuple[Any, list[str]]:
    """Read one YAML document.

    Returns:
        Its values, and the duplicate keys, described as faults.

    Raises:
        ValueError: The text is not valid YAML; the message gives line and column where known.
    """
    try:
        loader = _Loader(text)
        return loader.get_single_data(), loader.faults
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error
