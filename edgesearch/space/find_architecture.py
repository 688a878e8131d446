"""An architecture of a space by its text."""

from __future__ import annotations

from edgesearch.errors import SpaceError
from edgesearch.space.architecture import Architecture
from edgesearch.space.load_space import SearchSpace


def find_architecture(space: SearchSpace, text: str) -> Architecture:
    """The architecture that prints itself as a text such as `stem16_w16-48-96_d2-1-2_r32`.

    Raises:
        SpaceError: The text is of another form, or the architecture is not of the space; the
            message names every choice that is not, and the nearest architecture that is.
    """
    architecture = Architecture.from_text(text)
    chosen, stages = space.to_choices(architecture), len(space.stage_widths)
    if set(chosen) != set(space.choices):
        raise SpaceError(
            f"an architecture of the space {space.name!r}, with widths and depths of {stages} "
            "stages",
            f"{len(architecture.stage_widths)} widths and {len(architecture.stage_depths)} depths "
            f"in {architecture}",
            f"Name one of {stages} stages, such as {space.largest}.",
        )
    nearest = {
        name: min(values, key=lambda value: (abs(value - chosen[name]), value))
        for name, values in space.choices.items()
    }
    faults = [
        f"{name} {chosen[name]} (one of {', '.join(map(str, values))})"
        for name, values in space.choices.items()
        if chosen[name] not in values
    ]
    if faults:
        raise SpaceError(
            f"an architecture of the space {space.name!r}",
            f"{'; '.join(faults)} in {architecture}",
            f"The nearest is {space.from_choices(nearest)}.",
        )
    return architecture
