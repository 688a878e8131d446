"""The program on a board that measures there and reports each round at once.

It reads one JSON object a line from standard input and writes the same to standard output:

- `{"spec": …, "own_models": …}` is answered by `{"fingerprint": …, "reference_ms": …}`;
- `{"workloads": …, "anchors": …, "config": …, "history": …}` by one line for each round of each
  key, then `{"done": true}`;
- a failure by `{"fault": …}`.

First it prints its argument, the token of its connection: output before that line is foreign. It
ends at the end of its input, so that a lost connection leaves no process behind, and when the file
`connection` beside it holds another token: a connection that fell silent leaves the input open.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from devices import errors
from devices.fingerprint import take_fingerprint
from devices.locks import locked
from devices.runtimes.open_runtime import open_runtime
from devices.spec import DeviceSpec
from profilers.measure import KeyHistory, MeasureConfig, Measurement, RoundSamples
from profilers.meter import LocalMeter
from profilers.steadiness import Look
from profilers.usage import print_usage
from profilers.workload import REFERENCE_KEY, Workload

_REFERENCE_RUNS = 30
_SECONDS_BETWEEN_LOOKS = 1.0


def main() -> None:
    """Answer until the input ends; `usage DEVICE FILE` prints the usage of an engine instead."""
    cache_beside(Path(sys.argv[0]))
    if sys.argv[1] == "usage":
        print_usage(*sys.argv[2:])
        return
    folder, token = Path(sys.argv[0]).absolute().parent, sys.argv[1]
    answers = _private_output()
    requests = _requests()
    _end_after(folder / "connection", token)

    def write(line: str) -> None:
        answers.write(line + "\n")
        answers.flush()

    def say(answer: Mapping[str, Any]) -> None:
        write(json.dumps(answer))

    write("\n" + token)
    try:
        # The agent of the previous connection may still run: two would disturb each other.
        with locked(folder / "lock", wait=True):
            meter, hello = _open(requests.get())
            say(hello)
            while True:
                for answer in _measure(meter, requests.get()):
                    say(answer)
    except errors.UserError as error:
        say({"fault": encode_error(error)})


def cache_beside(archive: Path) -> None:
    """Cache engines in the agent's folder, which is removed at the end, unless the user set one."""
    os.environ.setdefault("EDGESEARCH_CACHE", str(archive.absolute().parent / "cache"))


def _private_output() -> Any:
    """Standard output for answers only: what libraries print there goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _requests() -> queue.Queue[dict[str, Any]]:
    """Requests as they come; the end of the input ends the process immediately."""
    requests: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return requests


def _end_after(connection: Path, token: str) -> None:
    """End the process immediately when a newer connection exists, or the folder is gone."""

    def look() -> None:
        with contextlib.suppress(OSError):
            while connection.read_bytes() == token.encode():
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        os._exit(0)

    threading.Thread(target=look, daemon=True).start()


def _open(request: Mapping[str, Any]) -> tuple[LocalMeter, dict[str, Any]]:
    spec = DeviceSpec.from_dict(request["spec"])
    runtime = open_runtime(spec)
    own_models = {key: Path(path) for key, path in request["own_models"].items()}
    fingerprint = take_fingerprint(runtime.name, runtime.version, runtime.settings)
    session = runtime.load(own_models[REFERENCE_KEY])
    try:
        reference_ms = min(session.time_ms(_REFERENCE_RUNS))
    finally:
        session.close()
    hello = {"fingerprint": fingerprint.to_dict(), "reference_ms": reference_ms}
    return LocalMeter(runtime, fingerprint, own_models), hello


def _measure(meter: LocalMeter, request: Mapping[str, Any]) -> Any:
    workloads = [Workload(key, Path(path)) for key, path in request["workloads"].items()]
    anchors = [Workload(key, Path(path)) for key, path in request["anchors"].items()]
    history = {
        key: KeyHistory(tuple(minima_ms), attempts)
        for key, (minima_ms, attempts) in request["history"].items()
    }
    config = MeasureConfig(**request["config"])
    for found in meter.measure(workloads, anchors, config, history):
        yield encode_measurement(found)
    yield {"done": True}


def encode_measurement(found: Measurement) -> dict[str, Any]:
    """A measurement as plain JSON values."""
    look = None if found.look is None else asdict(found.look)
    values = {"round": found.round, "key": found.key, "anchor": found.anchor, "look": look}
    if isinstance(found.outcome, RoundSamples):
        return {**values, "samples": asdict(found.outcome)}
    return {**values, "error": encode_error(found.outcome)}


def decode_measurement(values: Mapping[str, Any], session: int) -> Measurement:
    """Invert `encode_measurement`."""
    outcome: RoundSamples | errors.EngineError
    if "error" in values:
        outcome = errors.EngineError(*values["error"][1:])
    else:
        samples = values["samples"]
        lists = {name: tuple(samples[name]) for name in ("warm_ms", "waited_ms")}
        outcome = RoundSamples(samples["cold_ms"], **lists)
    look = None if values["look"] is None else Look(**values["look"])
    return Measurement(values["round"], values["key"], outcome, session, values["anchor"], look)


def encode_error(error: errors.UserError) -> list[str]:
    """An error as plain JSON values."""
    return [type(error).__name__, error.required, error.found, error.remedy]


def decode_error(values: list[str], host: str) -> errors.UserError:
    """Invert `encode_error`; the message names the host."""
    kind = getattr(errors, values[0], errors.DeviceError)
    required, found, remedy = values[1:]
    decoded: errors.UserError = kind(f"on {host}: {required}", found, remedy)
    return decoded
