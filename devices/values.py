"""Words of messages: values as in YAML, and paths in commands, names like a wrong one."""

from __future__ import annotations

import difflib
import json
import math
import reprlib
import shlex
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any


class _Yaml(reprlib.Repr):
    """Writes values as YAML does, and shortens long ones."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr_str(self, x: str, level: int) -> str:
        if x.isprintable() and "\\" not in x:
            return super().repr_str(x, level)
        text = x if len(x) <= self.maxstring else f"{x[:28]}...{x[-28:]}"
        return in_double_quotes(text)  # only they know escapes

    def repr_bool(self, x: bool, level: int) -> str:
        return json.dumps(x)

    def repr_NoneType(self, x: None, level: int) -> str:  # noqa: N802
        return json.dumps(x)

    def repr_float(self, x: float, level: int) -> str:
        if math.isfinite(x):
            return repr(x)
        return ".nan" if math.isnan(x) else ".inf" if x > 0 else "-.inf"

    def repr_tuple(self, x: tuple[Any, ...], level: int) -> str:
        return self.repr_list(list(x), level)

    def repr_instance(self, x: Any, level: int) -> str:
        return str(x) if isinstance(x, date) else self.repr_str(str(x), level)


def in_double_quotes(text: str) -> str:
    """A text in YAML's double quotes, whatever it holds; printable characters stay as they are."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    # In JSON's form, characters above U+FFFF would be two.
    return character if character.isprintable() else ascii(character)[1:-1]


in_yaml = _Yaml().repr
"""A value as it stands in a configuration: `null`, `true`, `'text'`, `[1, 2]`."""


def in_shell(path: object) -> str:
    """A path as it stands in a command: quoted if necessary, and never taken for an option.

    Line breaks, other control characters and bytes that are not valid in UTF-8 are written as bash
    and zsh read them.
    """
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped_in_shell, text))}'"


def _escaped_in_shell(character: str) -> str:
    if character in "'\\":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))


def did_you_mean(
    name: str, known: Iterable[str] | Mapping[str, str], otherwise: str = "", most: int = 1
) -> str:
    """A question that names what a wrong name is most like.

    Args:
        name: The wrong name.
        known: The right ones; a mapping says what to write for each.
        otherwise: The answer if none is similar.
        most: How many to name.
    """
    offered = known if isinstance(known, Mapping) else {each: each for each in known}
    of_lower = {each.lower(): offer for each, offer in offered.items()}
    near = difflib.get_close_matches(name.lower(), of_lower, most)
    return f"Did you mean {' or '.join(of_lower[each] for each in near)}?" if near else otherwise
