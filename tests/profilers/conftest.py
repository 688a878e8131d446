"""Tiny real models, and what is needed to build a table of them."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from devices import DeviceSpec, Fingerprint, OnnxRuntime, ReplayRuntime, Runtime, take_fingerprint
from profilers import LatencyTable, LocalMeter, MeasureConfig, Workload, build_table


@pytest.fixture
def spec() -> DeviceSpec:
    return DeviceSpec("local-cpu")


@pytest.fixture
def fingerprint() -> Fingerprint:
    return take_fingerprint("onnxruntime", "1.0")


@pytest.fixture
def write_block(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a model of one operator."""

    def write(name: str) -> Path:
        node = helper.make_node("Relu", ["images"], ["features"])
        graph = helper.make_graph(
            [node],
            "graph",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 16])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 16])],
        )
        opsets = [helper.make_opsetid("", 18)]
        path = tmp_path / f"{name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path

    return write


@pytest.fixture
def blocks(write_block: Callable[[str], Path]) -> list[Workload]:
    return [Workload(f"block/{name}", write_block(name)) for name in "abc"]


def _exactly(**changes: Any) -> MeasureConfig:
    return MeasureConfig(**{"interval": 1e9, "tolerance": 1e9, **changes})


@pytest.fixture
def exactly() -> Callable[..., MeasureConfig]:
    """Settings that make as many rounds as are asked for, whatever is measured."""
    return _exactly


@pytest.fixture
def build(tmp_path: Path, spec: DeviceSpec, fingerprint: Fingerprint) -> Callable[..., Any]:
    """Builds `table.jsonl` in the test's folder."""

    def build(
        workloads: list[Workload], runtime: Runtime | None = None, **changes: Any
    ) -> LatencyTable:
        arguments = {
            "spec": spec,
            "workloads": workloads,
            "meter": LocalMeter(runtime or OnnxRuntime(), fingerprint),
            "config": _exactly(rounds=3, runs=2),
            **changes,
        }
        return build_table(tmp_path / "table.jsonl", **arguments)

    return build


@pytest.fixture
def write(tmp_path: Path, spec: DeviceSpec, fingerprint: Fingerprint) -> Callable[..., Path]:
    """Writes a table of some lines."""

    def write(*lines: dict[str, Any], name: str = "hand.jsonl", **header: Any) -> Path:
        first = {
            "format": 1,
            "device": spec.to_dict(),
            "fingerprint": fingerprint.to_dict(),
            "measure": {},
            **header,
        }
        path = tmp_path / name
        path.write_text("".join(json.dumps(line) + "\n" for line in (first, *lines)))
        return path

    return write


def _rounds(
    key: str, *samples_ms: list[float], session: int = 1, **more: Any
) -> list[dict[str, Any]]:
    return [
        {"key": key, "session": session, "round": number, "samples_ms": samples, **more}
        for number, samples in enumerate(samples_ms, start=1)
    ]


@pytest.fixture
def rounds() -> Callable[..., list[dict[str, Any]]]:
    """Makes lines of a key, one for each round."""
    return _rounds


@pytest.fixture
def replay() -> Callable[..., ReplayRuntime]:
    """A runtime whose own two models take 1 ms and 0.25 ms."""

    def make(reference: float = 1.0, overhead: float = 0.25, **samples: Any) -> ReplayRuntime:
        return ReplayRuntime({"reference": [reference], "overhead": [overhead], **samples})

    return make


def _rounds_by_key(path: Path) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for line in path.read_text().splitlines()[1:]:
        values = json.loads(line)
        if values.get("type") in (None, "network") and "samples_ms" in values:
            found.setdefault(values["key"], []).append((values["session"], values["round"]))
    return found


@pytest.fixture
def rounds_by_key() -> Callable[[Path], dict[str, list[tuple[int, int]]]]:
    """Sessions and rounds of each block or network of a file, in the order of the file."""
    return _rounds_by_key


@dataclass(frozen=True)
class Board:
    """A real OpenSSH server on this machine that stands for a board.

    Attributes:
        config: Configuration file for the client, in which `board` and `twin` are the server.
        tmp: The folder for temporary files over there.
        pid: Of the server.
        port: Of the server.
    """

    config: Path
    tmp: Path
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

    def agents(self) -> list[int]:
        """Agents that run over there."""
        found = subprocess.run(
            ["pgrep", "-f", f"{self.tmp}/edgesearch-"], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def left(self) -> list[Path]:
        """Folders of ours over there."""
        return list(self.tmp.glob("edgesearch-*"))

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


def _configure(folder: Path, tmp: Path, port: int) -> None:
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
SetEnv TMPDIR={tmp}
"""
    )
    public = (folder / "host_key.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "config").write_text(
        f"""
Host board twin stranger
    HostName 127.0.0.1
    Port {port}
    UserKnownHostsFile {folder}/known
    IdentitiesOnly yes
Host board twin
    IdentityFile {folder}/user_key
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


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    server = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if server is None or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH server here: apt install openssh-server")
    folder = tmp_path_factory.mktemp("board")
    os.chmod(folder, 0o700)
    for name in ("host_key", "user_key"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    tmp = folder / "tmp"
    tmp.mkdir()
    shutil.copy(folder / "user_key.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where the server wants to be confined
    _configure(folder, tmp, port)
    process = subprocess.Popen(
        [server, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Server listening" in line:
            break
    found = Board(folder / "config", tmp, process.pid, port)
    yield found
    found.cut()
    process.kill()
    process.wait()
