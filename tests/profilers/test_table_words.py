"""What a table says of itself, from tables written by hand and one that was measured."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from devices import DeviceSpec, Fingerprint
from profilers import LatencyTable, MeasureConfig, Workload, describe_table

Write = Callable[..., Path]
Rounds = Callable[..., list[dict[str, Any]]]


def session(number: int, fingerprint: Fingerprint, **more: Any) -> dict[str, Any]:
    measure = MeasureConfig(rounds=1).to_dict()
    facts = {"fingerprint": fingerprint.to_dict(), "measure": measure}
    return {"type": "session", "session": number, **facts, **more}


def test_device_and_machine(write: Write, spec: DeviceSpec, fingerprint: Fingerprint) -> None:
    jetson = replace(
        fingerprint,
        chip="NVIDIA Jetson Orin Nano",
        runtime_version="1.30",
        gpu="Orin",
        driver="L4T 36.4.3",
        power_mode="15W",
        governor="schedutil",
        frequency_khz=(729600, 1510400),
    )
    device = replace(spec, name="orin", provider="cuda", precision="fp16", batch=8, threads=2)
    said = describe_table(
        LatencyTable.load(write(device=device.to_dict(), fingerprint=jetson.to_dict()))
    )
    assert said[0] == (
        "Latencies of the device orin: NVIDIA Jetson Orin Nano, Orin with driver L4T 36.4.3; "
        "onnxruntime 1.30 through cuda, fp16, batch 8, 2 threads."
    )
    assert said[1] == (
        "Power mode 15W, clock governor schedutil, clock 0.73 to 1.51 GHz when it was created."
    )
    assert said[2] == "It holds no measurements yet."


def test_what_is_not_known_is_not_said(
    write: Write, spec: DeviceSpec, fingerprint: Fingerprint
) -> None:
    bare = replace(fingerprint, governor=None, frequency_khz=None, power_mode=None)
    said = describe_table(LatencyTable.load(write(fingerprint=bare.to_dict())))
    assert said[0].endswith("; onnxruntime 1.0, fp32, batch 1, 1 thread.")
    assert len(said) == 2
    assert "None" not in " ".join(said)


def test_contents_and_sessions(write: Write, rounds: Rounds, fingerprint: Fingerprint) -> None:
    newer = replace(fingerprint, driver="570", gpu="RTX")
    begun = replace(fingerprint, driver="560", gpu="RTX")
    lines = [
        session(1, begun, began="2026-01-30T23:59:00Z"),
        *rounds("reference", [1.0], kind="reference"),
        *rounds("n", [1.0], kind="network"),
        *rounds("a", [1.0]),
        *rounds("b", [1.0]),
        *rounds("v", [1.0], kind="surprise"),
        *rounds("w", [1.0], kind="surprise"),
        {"kind": "block", "key": "c", "session": 1, "error": "cannot"},
        {"type": "merge", "session": 2, "source": "hers.jsonl"},
        session(2, newer, began="2026-02-01T00:00:00Z"),
        *rounds("a", [2.0], session=2),
    ]
    table = LatencyTable.load(write(*lines, fingerprint=begun.to_dict()))
    said = describe_table(table, nouns={"network": "whole network"})
    assert (
        "It holds 2 blocks, 1 whole network and 2 surprises, measured in 2 sessions, "
        "2026-01-30 to 2026-02-01; 1 key could not run."
    ) in said
    assert any(line.startswith("The latencies can be trusted: all 5 are known") for line in said)
    assert "1 session merged from hers.jsonl." in said
    assert "Session 2 was measured with driver '570', not '560'." in said


def test_why_something_could_not_run_and_what_to_do(write: Write, rounds: Rounds) -> None:
    errors = [
        {"kind": "network", "key": "n", "session": 1, "error": "no memory"},
        {"kind": "block", "key": "b", "session": 1, "error": "no kernel\n  of this kind."},
    ]
    said = describe_table(LatencyTable.load(write(*rounds("a", [1.0]), *errors)))
    assert said[-3].endswith("2 keys could not run.")
    assert said[-2].startswith("b could not run because of: no kernel of this kind. If")
    assert "`edgesearch profile`" in said[-2]
    assert "profile.retry_errors=true makes" in said[-2]
    said = describe_table(LatencyTable.load(write(*rounds("a", [1.0]), errors[0])))
    assert said[-2].startswith("n could not run because of: no memory. If")


def test_an_unsettled_machine_is_not_passed_over(write: Write, rounds: Rounds) -> None:
    table = LatencyTable.load(write(*rounds("a", [1.0])))
    said = describe_table(table)
    assert said[-1].startswith("The latencies are preliminary: 1 of 1 have fewer rounds")
    assert said[-1].endswith(
        "`edgesearch profile CONFIG --again` keeps the former table and measures anew."
    )
    assert said[-2].endswith("measured in 1 session.")
    assert describe_table(table, table.steadiness({"block": 1}))[-1].startswith("The latencies can")


def test_a_measured_table_says_when(build: Callable[..., Any], blocks: list[Workload]) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    table = build(blocks)
    (only,) = table.sessions
    began = datetime.strptime(only.began, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert before <= began <= datetime.now(timezone.utc)
    assert only.fingerprint == table.fingerprint.to_dict()
    assert f"It holds 3 blocks, measured in 1 session, {began:%Y-%m-%d}." in describe_table(table)
