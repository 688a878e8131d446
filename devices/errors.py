"""The root of the error tree of the three packages, and the errors about devices."""

from __future__ import annotations


class UserError(Exception):
    """Something that the user, or the user's environment, has to mend.

    The command line turns it into one message and exit code 2.

    Args:
        required: What was required.
        found: What was found instead.
        remedy: What the user can do about it.
    """

    def __init__(self, required: str, found: str, remedy: str) -> None:
        super().__init__(required, found, remedy)
        self.required = required
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.required}; found: {self.found}. {self.remedy}"


class UserNotice(UserWarning):
    """Something that the user should know, and need not mend.

    The command line prints it as one line.
    """


class FileError(UserError):
    """A file that cannot be read or written, is damaged, or is in use by another process."""


class DeviceError(UserError):
    """A device, or what is installed on it, is not as required."""


class UnknownDeviceError(DeviceError):
    """No description of that name, or a description with faults."""


class UnreachableError(DeviceError):
    """A device far away cannot be reached, or does not let the user in."""


class ConnectionLostError(DeviceError):
    """The connection to a device far away was lost."""


class RuntimeMissingError(DeviceError):
    """The package that provides a runtime is not installed, or lacks a part."""


class CompileError(DeviceError):
    """A runtime could not compile an ONNX file."""


class EngineError(DeviceError):
    """An engine cannot be loaded or run: damaged, foreign, or for another target."""
