"""The root of the error tree of the three packages, and the errors about devices."""

from __future__ import annotations

import errno
import re

_NO_MEMORY = re.compile(
    r"(?i)(?:can't|cannot|failed to) allocate memory|not enough memory|bad_alloc|"
    r"failed to map segment|could not create a primitive$|can't start new thread",
    re.MULTILINE,
)
"""How PyTorch, oneDNN, onnxruntime and the system say that the machine's memory ran out."""
_ASKED = re.compile(r"allocate (?:(\d+) bytes|([\d.]+ [KMGTPE]iB))|buffer of size (\d+)")


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


def lack_of_memory(error: BaseException | str) -> str | None:
    """What could not be allocated, if an error, or its text, says that the memory ran out.

    The words of Python, numpy, PyTorch, oneDNN, onnxruntime and the system are known. None for all
    other errors, and for the memory of a GPU.
    """
    text = str(error)
    is_memory = isinstance(error, MemoryError) or _NO_MEMORY.search(text)
    if not is_memory and not (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return None
    asked = _ASKED.search(text)
    if asked is None:
        return "an allocation that failed"
    size = asked[2] or f"{int(asked[1] or asked[3]) / 2**20:,.1f} MiB"
    return f"no room for {size} more"


def in_short(error: BaseException) -> str:
    """What an invalid value is, for a message that has its own remedy."""
    if isinstance(error, UserError):
        return f"{error.found} ({error.required})"
    return f"no {error}" if isinstance(error, KeyError) else str(error)


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
