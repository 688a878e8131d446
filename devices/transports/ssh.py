"""Files and programs on a board through the system's OpenSSH client."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from devices.errors import ConnectionLostError, DeviceError, UnreachableError
from devices.files import sha256_of

CONNECT_SECONDS = 10
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

    The user's ssh configuration, keys and agent apply; ssh never prompts. All commands share one
    connection, unless no folder here takes a socket. After a lost connection the next command opens
    a new one; the folder persists. The user's login shell there may be any POSIX shell, csh, tcsh
    or fish; output of its start-up files is skipped.

    Args:
        host: Name of the board for the ssh client.
        name: Distinguishes this folder from others of the same user on the board.
        ssh_config: Configuration file for the client; the user's own if None.
    """

    def __init__(self, host: str, name: str, ssh_config: str | None = None) -> None:
        self.host = host
        self._name = name
        self._control = _socket_folder()
        shared = ["ControlMaster=no", "ControlPath=none"]
        if self._control is not None:
            control = f"ControlPath={self._control.name}/{_SOCKET}"
            shared = ["ControlMaster=auto", control, "ControlPersist=60"]
        self._config = ["-F", ssh_config] if ssh_config else []
        self._options = [
            *("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"),
            *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
            *(word for option in shared for word in ("-o", option)),
            *self._config,
        ]
        self.folder = ""
        self.connection = ""
        self._there: set[str] = set()

    def connect(self) -> None:
        """Connect to the board, and create the folder if missing.

        The file `connection` in the folder holds the token of the newest connection, which is also
        `self.connection`: remote programs compare it with their own.

        Raises:
            UnreachableError: If the board cannot be reached, or refuses the user.
            DeviceError: If the folder cannot be created, or the answer is invalid.
        """
        token = uuid.uuid4().hex
        printed = self._run(_MAKE_FOLDER, self._name, token, lost=UnreachableError)
        _, _, answer = printed.partition(f"\n{token}\n")
        folder, *names = answer.splitlines() or [""]
        if not re.fullmatch(rf"/(.*/)?edgesearch-\d+-{re.escape(self._name)}", folder):
            raise self.intrusion(answer or printed)
        self.folder, self.connection, self._there = folder, token, set(names)

    def put(self, path: Path) -> str:
        """Send a file into the folder, named by the digest of its content, unless it is there.

        Returns:
            Its remote path.

        Raises:
            ConnectionLostError: If the connection is lost.
            DeviceError: If the file cannot be written on the board.
        """
        name = f"{sha256_of(path)}{path.suffix}"
        if name not in self._there:
            size = str(path.stat().st_size)
            with path.open("rb") as file:
                self._run(_PUT, self.folder, name, size, stdin=file)
            self._there.add(name)
        return f"{self.folder}/{name}"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a remote program with pipes to its standard streams; no shell interprets `command`.

        The program's name, the first word, may begin with `~` and hold `$NAME` or `${NAME}`.

        Returns:
            The ssh client's process; closing its input closes the program's input.
        """
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self._client(f"exec {expanding(command[0])} {shlex.join(command[1:])}"),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )

    def failure(self, status: int, message: str) -> DeviceError:
        """The error for the client's exit status and the error output of client and program."""
        last = ([line for line in message.strip().splitlines() if line.strip()] or ["no reason"])[
            -1
        ]
        if status == 255:  # ssh itself failed, not the remote command
            for text, required, remedy in _REFUSALS:
                if text in message:
                    host = shlex.join([*self._config, self.host])
                    return UnreachableError(
                        f"{required} {self.host}", last, remedy.replace("HOST", host)
                    )
            return ConnectionLostError(
                f"a stable connection to {self.host}", last, "Check the network and the board."
            )
        if "No space left" in message or "Disk quota" in message:
            return DeviceError(
                f"free space on {self.host} in {self.folder or 'TMPDIR'}",
                last,
                "Free space there, or let TMPDIR name another folder on that machine.",
            )
        return DeviceError(
            f"a successful command on {self.host}",
            f"exit status {status}: {last}",
            "Check that machine.",
        )

    def intrusion(self, printed: str) -> DeviceError:
        """The error for foreign output where an answer was expected."""
        first = ([line for line in printed.splitlines() if line.strip()] or [""])[0]
        return DeviceError(
            f"no output but that of edgesearch from {self.host}",
            repr(first[:200]) if first else "nothing",
            "Let the shell's start-up files there (such as .bashrc) print nothing and not exit "
            f"without a terminal: `ssh {self.host} echo yes` must print only yes.",
        )

    def close(self) -> None:
        """Remove the remote folder and end the connection; never raises."""
        if self.folder:
            self._quietly(self._client(_REMOVE, self.folder, self._name))
            self.folder = ""
        if self._control is not None:
            self._quietly(["ssh", *self._options, "-O", "exit", "--", self.host])
            self._control.cleanup()

    def _client(self, script: str, *arguments: str) -> list[str]:
        """The ssh command that runs a script of `sh` on the board."""
        return ["ssh", *self._options, "--", self.host, in_any_shell(script, *arguments)]

    def _run(
        self,
        script: str,
        *arguments: str,
        stdin: IO[bytes] | None = None,
        lost: type[DeviceError] = ConnectionLostError,
    ) -> str:
        try:
            done = subprocess.run(
                self._client(script, *arguments),
                stdin=stdin or subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except FileNotFoundError as error:
            raise DeviceError(
                "the OpenSSH client", "no program `ssh`", "Install it: apt install openssh-client"
            ) from error
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


def in_any_shell(script: str, *arguments: str) -> str:
    """A command line that runs a script of `sh`, whatever shell reads the line.

    Shells differ in how they read quotes, line breaks, `!` and `$`: only digits and backslashes
    within single quotes are left of the script, which `printf` turns back.
    """
    whole = f"set -- {shlex.join(arguments)}\n{script}" if arguments else script
    encoded = "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"\\0{byte:03o}"
        for byte in os.fsencode(whole)
    )
    return f"""sh -c 'eval "$(printf %b "$1")"' sh '{encoded}'"""


def expanding(program: str) -> str:
    """A program's name as a word of `sh`, in which `~`, `$NAME` and `${NAME}` are expanded.

    A variable that is not set over there ends the script with status 1 and says so.
    """
    home, rest = _HOME.fullmatch(program).groups()  # type: ignore[union-attr]
    words = [home or ""]
    for number, part in enumerate(_VARIABLE.split(rest)):
        is_name = number % 2
        words.append(f'"${{{part.strip("{}")}:?{UNSET}}}"' if is_name else shlex.quote(part))
    return "".join(word for word in words if word != "''") or "''"


UNSET = "is not set over there"
_HOME = re.compile(r"(~[\w.-]*(?:/|$))?(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{[A-Za-z_]\w*\})")
_SOCKET = "master"
SOCKET_FOLDERS = ("/tmp", "/var/tmp")
"""Where to try if the paths of the user's own folders for temporary files are too long."""
_SSH_SUFFIX = ".0123456789abcdef"
"""Like what ssh appends to a socket's name while it makes it."""


def _socket_folder() -> tempfile.TemporaryDirectory[str] | None:
    """A folder in which ssh can make its socket; None if there is none.

    The path of a socket has at most about 100 characters, and not every file system takes sockets.
    """
    if not hasattr(socket, "AF_UNIX"):
        return None
    own = (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"))
    for place in (*own, *SOCKET_FOLDERS):
        # ssh would expand a percent sign, and split at a space.
        if place is None or not re.fullmatch(r"[\w/.+-]+", place):
            continue
        with contextlib.suppress(OSError):
            folder = tempfile.TemporaryDirectory(prefix="edgesearch-ssh-", dir=place)
            try:
                with socket.socket(socket.AF_UNIX) as tried:
                    tried.bind(f"{folder.name}/{_SOCKET}{_SSH_SUFFIX}")
                os.unlink(f"{folder.name}/{_SOCKET}{_SSH_SUFFIX}")
                return folder
            except OSError:
                folder.cleanup()
    return None


_REACHABLE = "Check its name and address (`ssh HOST true` has to work), the network and the power."
_REFUSALS = (
    (
        "Permission denied",
        "permission to log in to",
        "Let `ssh HOST true` work without a password: ssh-copy-id HOST, or ssh-add your key.",
    ),
    (
        "Host key verification failed",
        "the known host key of",
        "Log in by hand once and check the key: ssh HOST.",
    ),
    ("Could not resolve hostname", "the address of", _REACHABLE),
    ("Connection refused", "an ssh server on", _REACHABLE),
    ("Connection timed out", "an answer from", _REACHABLE),
    ("No route to host", "a network route to", _REACHABLE),
    ("Network is unreachable", "a network route to", _REACHABLE),
    ("Bad configuration option", "a valid ssh configuration for", "Correct device.ssh_config."),
    ("Can't open user config file", "a readable ssh configuration for", "Check device.ssh_config."),
)
"""Text in the client's message, what was required, and the remedy; HOST is replaced."""
