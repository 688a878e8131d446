"""The configuration section `space`."""

from __future__ import annotations

from pydantic import ConfigDict, model_validator

from devices.values import did_you_mean
from edgesearch.errors import UserError
from edgesearch.families import known_spaces, load_space, space_from_dict
from edgesearch.settings import Settings, fault
from edgesearch.space import SearchSpace


class SpaceSettings(Settings):
    """The search space: one of edgesearch's, or a new one.

    Without `family`, `name` selects a space of edgesearch, and all other keys replace its fields.
    With `family`, the keys define a new space.
    """

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    """Name of a space of edgesearch, or of the new space."""
    family: str | None = None
    """Family of a new space."""

    @classmethod
    def names(cls) -> list[str]:
        """See `Settings`."""
        return known_spaces()

    def build(self) -> SearchSpace:
        """Make the space.

        Raises:
            SpaceError: There is no such space, or a field is not valid.
        """
        fields = self.model_extra or {}
        if self.family is None:
            return load_space(self.name or "", **fields)
        return space_from_dict({"name": self.name or "own", "family": self.family, **fields})

    @model_validator(mode="after")
    def _valid(self) -> SpaceSettings:
        if self.family is None:
            for key in self.model_extra or {}:
                if meant := did_you_mean(key, {"family": "`family`"}):
                    raise fault("`family` of a new space is required", f"`{key}`", meant)
            if self.name is None:
                raise fault("`name` of a space or `family` of a new one is required")
        try:
            self.build()
        except UserError as error:
            raise fault(error.required, error.found, error.remedy) from error
        return self
