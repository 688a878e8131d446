"""The errors of this package: the user's side of the tree, and interruption."""

from __future__ import annotations

from devices.errors import UserError as UserError
from devices.errors import UserNotice as UserNotice


class ConfigError(UserError):
    """A configuration with faults, all of which the message names."""


class DataError(UserError):
    """Images that are missing, unreadable or too few."""


class SpaceError(UserError):
    """A search space or an architecture that is not valid."""


class CheckpointError(UserError):
    """A checkpoint that is damaged, or of another run."""


class TrainingError(UserError):
    """Training that cannot go on."""


class ProcessesError(UserError):
    """Several processes that do not find each other, or of which one has ended."""


class LatencyError(UserError):
    """A latency table from which nothing can be predicted."""


class SearchError(UserError):
    """A search that cannot be done as asked."""


class InfeasibleError(SearchError):
    """Budgets that no architecture meets."""


class ExportError(UserError):
    """A winner that could not be exported, or differs after export."""


class StageError(UserError):
    """A stage whose input is missing or does not fit."""


class Interrupted(Exception):
    """A stage was stopped from outside; what it had done is kept."""


class ProcessStopped(Interrupted):
    """Another process of the same run was stopped, and says so."""


class ProcessFailed(Exception):
    """Another process of the same run has failed; it says why."""
