"""The errors of edgesearch: those that the user can mend, and interruptions."""

from __future__ import annotations

from devices.errors import UserError as UserError
from devices.errors import UserNotice as UserNotice
from devices.errors import lack_of_memory as lack_of_memory


class ConfigError(UserError):
    """The configuration has faults; the message lists all of them."""


class DataError(UserError):
    """Images are missing, unreadable or too few."""


class SpaceError(UserError):
    """A search space or an architecture is not valid."""


class CheckpointError(UserError):
    """A checkpoint is damaged, or belongs to another run."""


class TrainingError(UserError):
    """Training cannot continue."""


class ProcessesError(UserError):
    """Processes cannot connect to each other, or one of them has ended."""


class LatencyError(UserError):
    """A latency table does not allow predictions."""


class SearchError(UserError):
    """The search cannot run as configured."""


class InfeasibleError(SearchError):
    """No architecture meets the budgets."""


class ExportError(UserError):
    """A winner could not be exported, or differs after export."""


class DifferenceError(ExportError):
    """An exported file differs from the trained network by more than its tolerance."""


class StageError(UserError):
    """The input of a stage is missing or does not fit."""


class Interrupted(Exception):
    """A stage was stopped from outside; finished work is kept."""


class ProcessStopped(Interrupted):
    """Another process of the same run was stopped and reports it."""


class ProcessFailed(Exception):
    """Another process of the same run has failed and reports why."""
