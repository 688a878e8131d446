"""What holds for all tests, and a board at the other end of an ssh connection."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devices import DeviceSpec

# A shell that runs the tests in the background has them ignore Ctrl-C, and so would every process
# that they start: tests of an interruption need the handler that a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Exports are cached for all tests of a run, and never among the user's own.
_cache = tempfile.TemporaryDirectory(prefix="edgesearch-tests-")
os.environ["EDGESEARCH_CACHE"] = _cache.name


SHELLS = ("dash", "tcsh", "fish", "zsh")
"""Login shells of a board, if they are installed here."""


@dataclass(frozen=True)
class Board:
    """A real OpenSSH server on this machine that stands for a board.

    Attributes:
        config: Configuration file for the client, in which `board` and `twin` are the server, and
            `SHELL-board` the same with another login shell, one of `SHELLS`.
        tmp: The folder for temporary files over there.
        home: The user's folder over there, where the shell looks for its start-up files.
        pid: Of the server.
        port: Of the server.
    """

    config: Path
    tmp: Path
    home: Path
    pid: int
    port: int

    def spec(self, *hosts: str, **changes: Any) -> DeviceSpec:
        values = {"transport": "ssh", "hosts": hosts or ("board",), "ssh_config": str(self.config)}
        return DeviceSpec("board", **{"python": sys.executable, **values, **changes})

    def connections(self) -> list[int]:
        """Processes of the server that serve a connection."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def settle(self) -> None:
        """Wait until the server has ended all connections, which it does when it likes."""
        deadline = time.monotonic() + 60
        while self.connections():
            assert time.monotonic() < deadline, "a connection never ended"
            time.sleep(0.01)

    def agents(self) -> list[int]:
        """Agents that run over there."""
        # Not the clients here, whose command lines end so.
        command = f"^{sys.executable} {self.tmp}/edgesearch-"
        found = subprocess.run(
            ["pgrep", "-f", command], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def left(self) -> list[Path]:
        """Folders of ours over there."""
        return list(self.tmp.glob("edgesearch-*"))

    def greet(self, commands: str) -> None:
        """Let the user's shell over there run some commands in its start-up file."""
        if Path(pwd.getpwuid(os.geteuid()).pw_shell).name != "bash":
            pytest.skip("only bash reads .bashrc for the commands of ssh")
        (self.home / ".bashrc").write_text(f"cd {self.home}\n{commands}\n")

    def silence(self) -> None:
        """Let all connections fall silent: what runs over there hears nothing of their end."""
        for pid in self.connections():
            os.kill(pid, signal.SIGSTOP)

    def stop(self) -> None:
        """Switch the board off."""
        connections = self.connections()
        os.kill(self.pid, signal.SIGKILL)
        self.cut(connections)

    def cut(self, connections: Sequence[int] = ()) -> None:
        """Cut some connections, or all."""
        for pid in connections or self.connections():
            subprocess.run(["pkill", "-KILL", "-P", str(pid)], check=False)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _configure(folder: Path, tmp: Path, home: Path, port: int) -> None:
    """Write the configurations of the server and of the client, with the server's key."""
    (folder / "sshd_config").write_text(
        f"""
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={tmp} HOME={home}
"""
    )
    public = (folder / "host_key.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}")
    shells = "".join(
        f"Host {shell}-board\n    IdentityFile {folder}/{shell}_key\n" for shell in SHELLS
    )
    (folder / "config").write_text(
        f"""
Host board twin stranger *-board
    HostName 127.0.0.1
    Port {port}
    UserKnownHostsFile {folder}/known
    IdentitiesOnly yes
Host board twin
    IdentityFile {folder}/user_key
{shells}
Host stranger
    IdentityFile {folder}/host_key
Host closed
    HostName 127.0.0.1
    Port 1
Host unknown
    HostName 127.0.0.1
    Port {port}
    UserKnownHostsFile {folder}/none
    IdentityFile {folder}/user_key
    StrictHostKeyChecking yes
"""
    )


class _Server:
    """The OpenSSH server of all tests, started again after a test that stopped it."""

    def __init__(self, program: str, folder: Path) -> None:
        self.folder, self.tmp, self.home = folder, folder / "tmp", folder / "home"
        self._command = [program, "-D", "-e", "-f", str(folder / "sshd_config")]
        self.process: subprocess.Popen[str] | None = None
        os.chmod(folder, 0o700)
        for name in ("host_key", "user_key", *(f"{shell}_key" for shell in SHELLS)):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(key, check=True)
        authorized = [(folder / "user_key.pub").read_text()]
        for shell in SHELLS:  # reads the line as the login shell of such a user would
            public = (folder / f"{shell}_key.pub").read_text()
            authorized.append(f'command="{shell} -c \\"$SSH_ORIGINAL_COMMAND\\"" {public}')
        (folder / "authorized").write_text("".join(authorized))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where the server wants to be confined
        _configure(folder, self.tmp, self.home, self.port)

    def board(self) -> Board:
        """The server as a board on which nothing is."""
        for place in (self.tmp, self.home):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(exist_ok=True)
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
            assert self.process.stderr is not None
            if not any("Server listening" in line for line in self.process.stderr):
                pytest.fail(f"the server of the test has not come to listen at port {self.port}")
            # It must not wait for somebody to read what it says.
            threading.Thread(target=self.process.stderr.read, daemon=True).start()
        return Board(self.folder / "config", self.tmp, self.home, self.process.pid, self.port)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server here: apt install openssh-server")
    server = _Server(program, tmp_path_factory.mktemp("board"))
    yield server
    server.close()


@pytest.fixture
def board(_server: _Server) -> Iterator[Board]:
    found = _server.board()
    yield found
    found.cut()
