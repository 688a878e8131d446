"""Loads a configuration from a YAML file and `key=value` overrides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from pydantic import ValidationError

from devices.spec import DeviceSpec
from devices.values import did_you_mean, in_shell, in_yaml
from edgesearch.config.config import Config
from edgesearch.config.faults import describe_faults, kinds_at, section_at
from edgesearch.config.yaml_values import Parsed, parse_yaml
from edgesearch.errors import ConfigError
from edgesearch.latency.settings import DeviceSettings
from edgesearch.settings import Settings

SHIPPED = Path(__file__).parents[2] / "configs"


def shipped_configs() -> list[str]:
    """Names of the shipped configurations."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_config(path_or_name: str, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration, apply overrides and check it.

    Args:
        path_or_name: Path of a YAML file, or the name of a shipped configuration, such as
            `quickstart`.
        overrides: Texts `section.key=value`. For a text or a path, the value is that text exactly;
            for all other options, it is YAML (the items of a list of texts are texts). An empty
            value is null, and so is the word null for an option that may be null. Of two mutually
            exclusive options, an override replaces the one in the file.

    Returns:
        The configuration. Relative paths in it start at the current folder.

    Raises:
        ConfigError: The file cannot be read, or it has faults; the message lists all of them.
    """
    if isinstance(overrides, str) or not all(isinstance(text, str) for text in overrides):
        raise ConfigError(
            "a list of texts key=value as overrides", repr(overrides), "Write one text an override."
        )
    path = _find(path_or_name)
    try:
        parsed = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"a readable file {path}", reason, "Correct the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"a YAML file in UTF-8 at {path}",
            f"byte {error.start} is not UTF-8",
            "Save the file in UTF-8, or correct the path.",
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"valid YAML in {path}",
            str(error),
            "Correct this place; a text with ': ' or ' #' in it needs quotes.",
        ) from error
    remedy = "Correct the file, or give key=value on the command line."
    required = f"a configuration without faults in {path}"
    return _validated(Config, parsed, overrides, required, remedy)


def load_device(name: str, overrides: Sequence[str] = ()) -> DeviceSpec:
    """Build a device without a configuration.

    Args:
        name: Name of a known device, or a new name if the runtime is given.
        overrides: Texts `key=value` or `device.key=value`, keys of the section `device`.

    Raises:
        ConfigError: There are faults; the message lists all of them.
    """
    given = Parsed({"name": name}, [], {})
    texts = [text.removeprefix("device.") for text in overrides]
    remedy = "Correct --device, or the key=value of its section."
    return _validated(DeviceSettings, given, texts, "a device without faults", remedy).build()


Model = TypeVar("Model", bound=Settings)


def _validated(
    schema: type[Model], given: Parsed, overrides: Sequence[str], required: str, remedy: str
) -> Model:
    """Apply overrides and validate; the error lists all faults."""
    values = {} if given.values is None else given.values
    written = dict(given.written)
    faults = [*given.faults, *_override_all(schema, values, written, overrides)]
    try:
        settings = schema.model_validate(values)
    except ValidationError as error:
        faults += describe_faults(error, schema, written)
    if faults:
        found = f"{len(faults)} fault(s):" + "".join(f"\n  - {fault}" for fault in faults)
        raise ConfigError(required, found, f"\n{remedy}")
    return settings


def _find(path_or_name: str) -> Path:
    # Shipped names come first: an output folder with that name must not hide the configuration.
    if path_or_name in shipped_configs():
        return SHIPPED / f"{path_or_name}.yaml"
    if Path(path_or_name).is_dir():
        own = Path(path_or_name) / "config.yaml"
        raise ConfigError(
            "a configuration, which is a file",
            f"the folder {path_or_name}",
            f"For the configuration of this run: {in_shell(own)}"
            if own.is_file()
            else f"For a folder of images: edgesearch init {in_shell(path_or_name)}",
        )
    if Path(path_or_name).exists():
        return Path(path_or_name)
    raise ConfigError(
        "the path of a YAML file, or the name of a shipped configuration "
        f"({', '.join(shipped_configs())})",
        f"no file {path_or_name}",
        did_you_mean(
            Path(path_or_name).stem,
            shipped_configs(),
            "Correct the path or the name; `edgesearch init IMAGES` writes a file for images.",
        ),
    )


def _override_all(
    schema: type[Settings], values: Any, written: dict[tuple[str, ...], str], texts: Sequence[str]
) -> Iterator[str]:
    """Replace values and how they are written in place, and yield faults.

    Unknown keys are found later.
    """
    given: set[str] = set()
    for text in texts:
        key, equals, value = text.partition("=")
        *sections, name = key.strip().split(".")
        if not equals or not all((*sections, name)):
            yield f"{text!r}: must have the form key.of.a.section=value"
            continue
        try:
            parsed = _parse_override(schema, (*sections, name), value)
        except ValueError as error:
            yield f"{key}: must be valid YAML; found: {in_yaml(value)} ({error})"
            continue
        if parsed.faults:
            yield f"{key}: {parsed.faults[0]}"
            continue
        section = _section_of(values, sections)
        if not isinstance(section, dict):
            where = ".".join(sections) or "the file"
            yield f"{key}: {where} is not a section; found: {in_yaml(section)}"
            continue
        section[name] = parsed.values
        path = (*sections, name)
        for place in [place for place in written if place[: len(path)] == path]:
            del written[place]
        written |= {(*path, *below): source for below, source in parsed.written.items()}
        given.add(".".join((*sections, name)))
        settings = section_at(schema, sections)
        pairs = () if settings is None or parsed.values is None else settings.exclusive
        for other in (each for pair in pairs if name in pair for each in pair if each != name):
            if ".".join((*sections, other)) not in given:
                section.pop(other, None)


def _parse_override(schema: type[Settings], names: Sequence[str], value: str) -> Parsed:
    """The value of an override: a text as it is, anything else as YAML.

    Raises:
        ValueError: It is not valid YAML.
    """
    kinds = kinds_at(schema, names)
    if not value or (value == "null" and NoneType in kinds):
        return Parsed(None, [], {})
    if kinds and kinds <= {str, NoneType}:
        return Parsed(value, [], {})
    return parse_yaml(value, texts=bool(kinds) and kinds <= {list[str], NoneType})


def _section_of(values: Any, names: Sequence[str]) -> Any:
    """The values of a section, created if missing."""
    for name in names:
        if isinstance(values, dict):
            # A copy: a YAML alias may refer to the same section elsewhere.
            inner = values.get(name)
            values[name] = dict(inner or {}) if isinstance(inner, (dict, type(None))) else inner
            values = values[name]
    return values
