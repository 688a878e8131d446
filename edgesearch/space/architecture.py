"""One point of a search space."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgesearch.errors import SpaceError

TEXT = r"stem(\d+)_w(\d+(?:-\d+)*)_d(\d+(?:-\d+)*)_r(\d+)"


@dataclass(frozen=True)
class Architecture:
    """A subnet, described by what may vary in its search space.

    Attributes:
        stem_width: Output channels of the stem.
        stage_widths: Width of each stage, in channels (in a bottleneck the width of its middle).
        stage_depths: Number of blocks of each stage.
        resolution: Height and width of the input images, in pixels.
    """

    stem_width: int
    stage_widths: tuple[int, ...]
    stage_depths: tuple[int, ...]
    resolution: int

    def to_dict(self) -> dict[str, Any]:
        """The architecture as plain JSON types."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Architecture:
        """Read what `to_dict` wrote.

        Raises:
            SpaceError: A field is missing, unknown, or not made of whole numbers.
        """
        fields = ("stem_width", "stage_widths", "stage_depths", "resolution")
        try:
            if set(values) != set(fields):
                raise ValueError(f"the fields {sorted(values)}")
            return cls(
                stem_width=_whole(values["stem_width"]),
                stage_widths=tuple(map(_whole, values["stage_widths"])),
                stage_depths=tuple(map(_whole, values["stage_depths"])),
                resolution=_whole(values["resolution"]),
            )
        except (TypeError, ValueError) as error:
            raise SpaceError(
                f"an architecture has the fields {', '.join(fields)}, in whole numbers",
                str(error),
                "Correct the entry, or copy one from winners.json.",
            ) from error

    @classmethod
    def from_text(cls, text: str) -> Architecture:
        """Read what `str` wrote, such as `stem16_w16-48-96_d2-1-2_r32`.

        Raises:
            SpaceError: The text is of another form.
        """
        found = re.fullmatch(TEXT, text.strip(), re.ASCII)
        if found is None:
            raise SpaceError(
                "an architecture in the form stem16_w16-48-96_d2-1-2_r32 (width of the stem, "
                "widths and depths of the stages, resolution)",
                repr(text),
                "Copy one from what `edgesearch search` or `edgesearch validate` prints.",
            )
        stem_width, widths, depths, resolution = found.groups()
        return cls(
            stem_width=int(stem_width),
            stage_widths=tuple(map(int, widths.split("-"))),
            stage_depths=tuple(map(int, depths.split("-"))),
            resolution=int(resolution),
        )

    def __str__(self) -> str:
        widths = "-".join(map(str, self.stage_widths))
        depths = "-".join(map(str, self.stage_depths))
        return f"stem{self.stem_width}_w{widths}_d{depths}_r{self.resolution}"


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"the value {value!r}")
    return value
