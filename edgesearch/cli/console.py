"""Standard streams to which anything can be printed without ending a command."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import Any

READER_LEFT = {errno.EPIPE, errno.EIO}
"""The reader of a pipe, or the terminal, is gone."""
STANDARD_OUTPUT = "standard output"
"""In place of a file's name in the error when it cannot be written."""
SPELLED = {"–": "-", "×": "x", "≤": "<=", "τ": "tau", "Δ": "delta", "…": "...", "·": "*"}
"""How consoles that lack a character show it; any other is a question mark."""


def prepare_streams() -> None:
    """Let standard output and standard error take any text at any time.

    A closed one goes nowhere, and so does what is printed after its reader has left; a full disk
    ends a command only where its result would be lost. Characters that an encoding lacks are
    spelled; bytes of a file name that are not valid in the encoding are printed as they are.
    """
    for number in range(3):  # files opened later must not take the place of a closed stream
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    codecs.register_error("spelled", _spell)
    for number, name in ((1, "stdout"), (2, "stderr")):
        former = getattr(sys, name)
        options: dict[str, Any] = {"encoding": "utf-8"}
        if former is not None:
            former.flush()
            options = {
                option: getattr(former, option)
                for option in ("encoding", "line_buffering", "write_through")
            }
        buffer = io.BufferedWriter(_Stream(number))
        setattr(sys, name, io.TextIOWrapper(buffer, errors="spelled", **options))


def visible(text: str) -> str:
    """A text with control characters escaped, which a terminal would obey."""
    return "".join(
        c if c.isprintable() or c in "\n\t" or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1]
        for c in text
    )


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file name; see PEP 383
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return SPELLED.get(character, "?"), error.start + 1


class _Stream(io.FileIO):
    """A standard stream that survives its reader."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        self._is_lost = False

    def write(self, data: Any) -> int:
        """Write some bytes; none once writing has failed."""
        try:
            while not self._is_lost:
                written = super().write(data)
                if written is not None:
                    return written
                select.select([], [self], [])  # another process made the stream non-blocking
        except OSError as error:
            self._is_lost = True
            if error.errno not in READER_LEFT and self.fileno() == 1:
                raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error
        return len(data)
