"""The system's OpenSSH client as the way to a board."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from devices.errors import ConnectionLostError, DeviceError, UnreachableError

CONNECT_SECONDS = 10
_FAILED = 255
"""Exit status of ssh where ssh itself failed, not the command over there."""
_MOST_SHOWN = 200
_NO_CLIENT = ("the OpenSSH client", "no program `ssh`", "Install it: apt install openssh-client")

_MAKE_FOLDER = """
umask 077
folder=${TMPDIR:-/tmp}/edgesearch-$(id -u)-$1
find "${TMPDIR:-/tmp}" -maxdepth 1 -name "edgesearch-$(id -u)-*" -mtime +1 -exec rm -rf {} + 2>&-
mkdir -p "$folder" && cd "$folder" && printf %s "$2" > connection &&
printf '\n%s\n' "$2" && pwd && ls
"""
_PUT = """
cd "$1" && cat > "$2.partial" && [ "$(wc -c < "$2.partial")" -eq "$3" ] && mv "$2.partial" "$2"
"""
_REMOVE = """
case $1 in /*) [ "${1##*/}" = "edgesearch-$(id -u)-$2" ] && rm -rf -- "$1" ;; esac
"""


class SshTransport:
    """A folder on a board, and programs that run there.

    The user's own ssh configuration, keys and agent apply; nothing is ever asked for. All commands
    share one connection; if it is lost, the next command makes another one, and the folder is
    still there. What the user's shell over there prints as it starts is not taken for an answer.

    Args:
        host: Name of the board for the ssh client.
        name: Tells this folder from others of the same user over there.
        ssh_config: Configuration file for the client; the user's own if None.
    """

    def __init__(self, host: str, name: str, ssh_config: str | None = None) -> None:
        self.host = host
        self._name = name
        self._control = tempfile.TemporaryDirectory(prefix="edgesearch-ssh-")
        self._options = [
            *("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"),
            *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
            *("-o", "ControlMaster=auto", "-o", f"ControlPath={self._control.name}/master"),
            *("-o", "ControlPersist=60", *(("-F", ssh_config) if ssh_config else ())),
        ]
        self.folder = ""
        self.connection = ""
        self._there: set[str] = set()

    def connect(self) -> None:
        """Reach the board, and make the folder if it is not there.

        The file `connection` in the folder tells programs over there which connection is the
        newest: each one has a token of its own, `self.connection`.

        Raises:
            UnreachableError: If the board cannot be reached, or refuses the user.
            DeviceError: If the folder cannot be made, or something else answers.
        """
        token = uuid.uuid4().hex
        command = ["sh", "-c", _MAKE_FOLDER, "sh", self._name, token]
        printed = self._run(command, lost=UnreachableError)
        _, _, answer = printed.partition(f"\n{token}\n")
        folder, *names = answer.splitlines() or [""]
        if not re.fullmatch(rf"/(.*/)?edgesearch-\d+-{re.escape(self._name)}", folder):
            raise self.intrusion(answer or printed)
        self.folder, self.connection, self._there = folder, token, set(names)

    def put(self, path: Path) -> str:
        """Send a file into the folder, under the digest of its content; not twice.

        Args:
            path: The file here.

        Returns:
            Its path over there.

        Raises:
            ConnectionLostError: If the connection was lost meanwhile.
            DeviceError: If it cannot be written over there.
        """
        with path.open("rb") as file:
            name = f"{_digest(file)}{path.suffix}"
        if name not in self._there:
            size = str(path.stat().st_size)
            with path.open("rb") as file:
                self._run(["sh", "-c", _PUT, "sh", self.folder, name, size], stdin=file)
            self._there.add(name)
        return f"{self.folder}/{name}"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program over there, with pipes to its standard streams.

        Args:
            command: Program and arguments, which no shell interprets.

        Returns:
            The client's process; closing its input ends the input of the program.
        """
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self._client(command), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )

    def failure(self, status: int, message: str) -> DeviceError:
        """Say what went wrong.

        Args:
            status: Exit status of the client.
            message: What the client and the program over there have said.
        """
        last = ([line for line in message.strip().splitlines() if line.strip()] or ["no reason"])[
            -1
        ]
        if status == _FAILED:
            for text, required, remedy in _REFUSALS:
                if text in message:
                    return UnreachableError(f"{required} {self.host}", last, remedy)
            return ConnectionLostError(
                f"a connection to {self.host} that lasts", last, "Check the network and the board."
            )
        if "No space left" in message or "Disk quota" in message:
            return DeviceError(
                f"free space on {self.host} in {self.folder or 'TMPDIR'}",
                last,
                "Free space there, or let TMPDIR name another folder on that machine.",
            )
        return DeviceError(
            f"commands to work on {self.host}",
            f"exit status {status}: {last}",
            "Check that machine.",
        )

    def intrusion(self, printed: str) -> DeviceError:
        """Say that something else was printed where an answer was due.

        Args:
            printed: What was printed.
        """
        first = ([line for line in printed.splitlines() if line.strip()] or [""])[0]
        return DeviceError(
            f"answers of our own programs alone from {self.host}",
            repr(first[:_MOST_SHOWN]) if first else "nothing",
            "Let the start-up files of the shell there (.bashrc, say) print nothing, and not end "
            f"the shell, where there is no terminal: `ssh {self.host} echo yes` prints yes alone.",
        )

    def close(self) -> None:
        """Remove the folder over there, and end the connection; never an error."""
        if self.folder:
            self._quietly(self._client(["sh", "-c", _REMOVE, "sh", self.folder, self._name]))
            self.folder = ""
        self._quietly(["ssh", *self._options, "-O", "exit", "--", self.host])
        self._control.cleanup()

    def _client(self, command: Sequence[str]) -> list[str]:
        # The shell over there sees one word for each argument.
        return ["ssh", *self._options, "--", self.host, shlex.join(command)]

    def _run(
        self,
        command: Sequence[str],
        stdin: IO[bytes] | None = None,
        lost: type[DeviceError] = ConnectionLostError,
    ) -> str:
        """Output of a command that has to succeed."""
        try:
            done = subprocess.run(
                self._client(command),
                stdin=stdin or subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise DeviceError(*_NO_CLIENT) from error
        if done.returncode:
            failure = self.failure(done.returncode, done.stderr.decode(errors="replace"))
            if isinstance(failure, ConnectionLostError):
                failure = lost(failure.required, failure.found, failure.remedy)
            raise failure
        return os.fsdecode(done.stdout)

    def _quietly(self, command: Sequence[str]) -> None:
        null = subprocess.DEVNULL
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command, stdin=null, stdout=null, stderr=null, check=False, timeout=CONNECT_SECONDS
            )


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


_REACHABLE = "Check its name and address (`ssh HOST true` has to work), the network and the power."
_REFUSALS = (
    (
        "Permission denied",
        "to be let in by",
        "Let `ssh HOST true` work without a password: ssh-copy-id HOST, or ssh-add your key.",
    ),
    (
        "Host key verification failed",
        "the known host key of",
        "Log in by hand once and check the key: ssh HOST.",
    ),
    ("Could not resolve hostname", "to find", _REACHABLE),
    ("Connection refused", "an ssh server on", _REACHABLE),
    ("Connection timed out", "an answer of", _REACHABLE),
    ("No route to host", "a way to", _REACHABLE),
    ("Network is unreachable", "a way to", _REACHABLE),
    ("Bad configuration option", "a valid ssh configuration for", "Mend device.ssh_config."),
    ("Can't open user config file", "a readable ssh configuration for", "Check device.ssh_config."),
)
"""What the client says, what was required then, and what to do."""
