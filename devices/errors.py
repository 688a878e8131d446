"""The root of the error tree of the three packages, and the errors about devices."""

from __future__ import annotations


class UserError(Exception):
    """A fault of the user's input or environment; the command line exits with code 2."""

    def __init__(self, required: str, found: str, remedy: str) -> None:
        super().__init__(required, found, remedy)
        self.required = required
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.required}; found: {self.found}. {self.remedy}"


class UserNotice(UserWarning):
    """A warning about something that the user need not fix; one line on the command line."""


class FileError(UserError):
    """A file that cannot be read or written, is damaged, or is in use by another process."""


class DeviceError(UserError):
    """A device, or what is installed on it, is not as required."""


class UnknownDeviceError(DeviceError):
    """No device description has this name, or the description is invalid."""


class UnreachableError(DeviceError):
    """A remote device cannot be reached, or refuses the login."""


class ConnectionLostError(DeviceError):
    """The connection to a remote device was lost."""


class RuntimeMissingError(DeviceError):
    """The package that provides a runtime is not installed or incomplete."""


class CompileError(DeviceError):
    """A runtime could not compile an ONNX file."""


class EngineError(DeviceError):
    """An engine cannot be loaded or run: damaged, of another runtime, or for another target."""
