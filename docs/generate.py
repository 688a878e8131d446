"""Writes the reference pages of the commands and of the settings, from their declarations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from edgesearch.cli.main import app
from edgesearch.config.keys import keys


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages (an event of MkDocs)."""
    for page, lines in {"commands": commands(), "settings": settings()}.items():
        text = "\n".join(lines)
        files.append(File.generated(config, f"reference/{page}.md", content=text))
    return files


def commands() -> Iterator[str]:
    """The page of all commands: what each does, its arguments and options."""
    yield "# Commands\n"
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        if command.hidden:
            continue
        pieces = " ".join(command.collect_usage_pieces(typer.Context(command)))
        yield f"## {name}\n\n```\nedgesearch {name} {pieces}\n```\n\n{command.help}\n"
        yield "| argument | meaning |\n| --- | --- |"
        for parameter in command.params:
            meaning = getattr(parameter, "help", "") or ""
            if meaning:
                shown = (
                    ", ".join(parameter.opts)
                    if parameter.param_type_name == "option"
                    else (parameter.metavar or parameter.name.upper())
                )
                yield f"| `{shown}` | {_cell(meaning)} |"
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def settings() -> Iterator[str]:
    """The page of all keys of a configuration, one table a section."""
    yield "# Settings\n\nEvery key of a configuration can also be given as `KEY=VALUE` on the"
    yield "command line. `edgesearch keys PREFIX` prints the same on the console.\n"
    section = None
    for key in keys():
        above, _, _ = key.path.rpartition(".")
        if above != section:
            section = above
            yield f"\n## {section or 'Top level'}\n"
            yield "| key | values | default | meaning |\n| --- | --- | --- | --- |"
        default = "required" if key.default is None else f"`{_cell(key.default)}`"
        yield f"| `{key.path}` | {_cell(key.kind)} | {default} | {_cell(key.meaning)} |"
