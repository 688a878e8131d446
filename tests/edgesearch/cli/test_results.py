"""Tables for people, whatever the terminal and whatever the texts."""

import io
import json
import math
import sys
from pathlib import Path

import pytest
import rich.console

from edgesearch.cli import results
from edgesearch.families import load_space

HEADER = ["", "a ms", "b", "architecture"]
ROWS = [
    ["[red]w0[/red] of a/path/that/is/long", "1.000", "12,345,678", "stem16_w16-48-96_d2-1-2_r32"],
    ["字 :smile: [/]", "12.000", "–", "stem8"],
]


def test_piped_columns_are_as_wide_as_their_entries(capsys):
    results._print_table(HEADER, ROWS)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        f"{'':36}    a ms           b                 architecture",
        f"{ROWS[0][0]}   1.000  12,345,678  stem16_w16-48-96_d2-1-2_r32",
        f"{ROWS[1][0]:35}  12.000           –                        stem8",
    ]


@pytest.mark.parametrize("width", [10, 40, 60, 200])
def test_on_a_terminal_texts_are_folded_and_figures_never(monkeypatch, width):
    shown = io.StringIO()
    make = rich.console.Console
    monkeypatch.setattr(
        rich.console,
        "Console",
        lambda **options: make(
            file=shown, force_terminal=True, width=width, color_system=None, **options
        ),
    )
    results._print_table(HEADER, ROWS)
    text = shown.getvalue()
    for figure in ("1.000", "12.000", "12,345,678"):
        assert figure in text
    assert "…" not in text
    whole = "".join(text.split())
    for cell in "".join(ROWS[0][0].split()), "stem8":
        assert all(character in whole for character in cell)
    assert (ROWS[0][3] in text) == (width == 200)


def test_a_console_that_lacks_characters(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), "ascii", errors="replace")
    monkeypatch.setattr(sys, "stdout", shown)
    results._print_table(HEADER, ROWS)
    shown.flush()
    assert b"12.000           ?" in shown.buffer.getvalue()


def test_json_shows_an_architecture_by_its_choices(capsys):
    space = load_space("resnet_tiny")
    results.print_json({"a": (space.largest, Path("b"), math.nan)})
    assert json.loads(capsys.readouterr().out) == {"a": [dict(space.largest), "b", None]}
