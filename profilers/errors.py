"""Errors of this package."""

from __future__ import annotations

from devices.errors import UserError


class ProfilerError(UserError):
    """Measuring cannot be done as asked."""


class TableError(ProfilerError):
    """A latency table that cannot be read or written."""


class TableMismatchError(TableError):
    """A latency table of another device, or of another state of the device."""


class MissingKeyError(TableError):
    """A latency table lacks a required measurement."""
