"""YAML without its traps."""

import pytest
import yaml

from edgesearch.config.yaml_values import Parsed, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2e4", -2e4),
        ("1.5e3", 1500.0),
        (".5e-1", 0.05),
        ("3e+2", 300.0),
        ("1_000e0", 1000.0),
        ("0.1", 0.1),
        ("12", 12),
        ("65_536", 65536),
        ("e3", "e3"),
        ("1e", "1e"),
        ("SM75", "SM75"),
        ("'1e-3'", "1e-3"),
    ],
)
def test_numbers(text, value):
    parsed = parse_yaml(f"key: {text}")
    values = parsed.values
    assert values == {"key": value}
    assert type(values["key"]) is type(value)
    assert parsed.faults == []
    assert parsed.written["key",] == text


def test_the_trap_is_there_without_our_loader():
    assert yaml.safe_load("1e-3") == "1e-3"


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "c:\n  a: 1\n\n  a: 2", "{a: 1, a: 2}"])
def test_keys_given_twice(text):
    faults = parse_yaml(text).faults
    lines = [number for number, line in enumerate(text.split("\n"), 1) if "a:" in line]
    assert faults == [f"a: given twice, in lines {lines[0]} and {lines[-1]}"]


def test_all_keys_given_twice_are_noted():
    assert len(parse_yaml("a: 1\na: 2\nb: {c: 1, c: 2}").faults) == 2


def test_merged_keys_are_not_given_twice():
    parsed = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}")
    assert parsed.values["b"] == {"x": 3, "y": 2}
    assert parsed.faults == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\nb: 3", "line 2, column"),
        ("a: 1\n\tb: 2", "line 2, column 1"),
        ("a: *nothing", "line 1, column 4: found undefined alias"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        ("a: \x00", "special characters are not allowed"),
        ("? {a: 1}\n: 2", "unhashable"),
        ("[" * 5000, "recursion"),
        ("a: 2020-13-45", "month must be in"),
    ],
)
def test_text_that_is_no_yaml_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_empty_text():
    assert parse_yaml("") == Parsed(None, [], {})


def test_how_values_of_one_line_are_written():
    text = "a: {b: 0755, c: [on, 'x']} # note\nd: |\n  two\n  lines\ne:\nf: &f [*f]\n"
    written = parse_yaml(text).written
    assert {path: source for path, source in written.items() if path} == {
        ("a",): "{b: 0755, c: [on, 'x']}",
        ("a", "b"): "0755",
        ("a", "c"): "[on, 'x']",
        ("a", "c", "0"): "on",
        ("a", "c", "1"): "'x'",
        ("e",): "",
        ("f",): "&f [*f]",
    }


def test_items_that_are_texts_whatever_they_look_like():
    assert parse_yaml("[on, 1.10, 2026-11-28, ~, 0755]", texts=True).values == [
        *("on", "1.10", "2026-11-28", "~", "0755")
    ]
