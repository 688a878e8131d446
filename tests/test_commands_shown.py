"""Every command that README.md and the heads of the configurations show, as it stands there.

All are parsed by the command line's own parser, with their overrides loaded into a configuration;
those that take no work (`devices`) really run, and others run in their own tests.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edgesearch.cli.main import app
from edgesearch.config import Config, load_config, load_device
from edgesearch.config.faults import kinds_at

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FILLED = {
    "PATH": "images",
    "NAME": "local-cpu",
    "FOLDER": "out",
    "CONFIG": "configs/quickstart.yaml",
}
FILLED |= {"FILE": "table.jsonl", "OTHER": "other.jsonl"}


def shown_lines() -> Iterator[str]:
    """Lines of code blocks and code within sentences of README, and of configuration heads."""
    for block in re.findall(r"^```\w*\n(.*?)^```", README, re.M | re.S):
        for line in block.splitlines():
            yield line.removeprefix("$ ")
    yield from re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        head = path.read_text("utf-8").partition("\n\n")[0]
        yield from re.findall(r"^#     (\S.*)$", head, re.M)


def commands() -> Iterator[tuple[str, ...]]:
    for line in shown_lines():
        for part in re.split(r" && | \|\| ", " ".join(line.split())):
            words = shlex.split(part, comments=True) if "edgesearch " in part else []
            if words[:1] == ["torchrun"]:
                assert words[words.index("--no-python") + 1] == "edgesearch"
                words = words[words.index("--no-python") + 1 :]
            if words[:1] == ["edgesearch"] and words[1:2] != ["--help"]:
                yield tuple(words[1:])


COMMANDS = sorted(set(commands()))


def test_commands_are_found():
    assert len(COMMANDS) > 20
    assert {words[0] for words in COMMANDS} >= {
        *("run", "profile", "validate", "pretrain", "search", "export", "evaluate", "bench"),
        *("table", "devices"),
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_each_command_is_understood(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, *arguments = [re.sub(r"\b[A-Z]+\b", lambda m: FILLED.get(m[0], m[0]), w) for w in words]
    if len(words) == 1 and name != "devices":
        assert name in typer.main.get_command(app).commands  # named in a sentence
        return
    command = typer.main.get_command(app).commands[name]
    given = command.make_context(name, list(arguments)).params
    if "config" in given:
        config = load_config(given["config"], given["overrides"] or ())
        assert config.space.build().size > 0
        assert config.device.build().name
    elif name == "bench":
        load_device(given["device"], given["overrides"] or ())
    elif name == "devices":
        assert CliRunner().invoke(app, [name, *arguments]).exit_code == 0


OVERRIDES = sorted({text for text in re.findall(r"`([a-z_]+\.[a-z_.]+=[^`]+)`", README)})


@pytest.mark.parametrize("text", OVERRIDES)
def test_each_override_in_a_sentence_is_understood(text):
    first, *more = [
        re.sub(r"\b[A-Z]{2,}\b(?=$| |/)", lambda m: FILLED.get(m[0], m[0]), word)
        for word in re.split(r" (?=[a-z_]+\.[a-z_.]+=)", text.replace("\n", " "))
    ]
    base = [] if "data.source" in text else ["data.source=folder", "data.root=images"]
    key, _, value = first.partition("=")
    choices = value.split("|") if kinds_at(Config, key.split(".")) else [value]
    for choice in choices:
        load_config("cifar10", [*base, f"{key}={choice.strip(chr(39))}", *more])
    assert choices
