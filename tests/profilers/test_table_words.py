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
    ).split("\n")
    assert said[0] == (
        "Latencies of the device orin: NVIDIA Jetson Orin Nano, Orin with driver L4T 36.4.3; "
        "onnxruntime 1.30 through cuda, fp16, batch 8, 2 threads."
    )
    assert said[1] == (
        "Power mode 15W, clock governor schedutil, clock 0.73 to 1.51 GHz when it was begun."
    )
    assert said[2] == "It holds no measurements yet."


def test_what_is_not_known_is_not_said(
    write: Write, spec: DeviceSpec, fingerprint: Fingerprint
) -> None:
    bare = replace(fingerprint, governor=None, frequency_khz=None, power_mode=None)
    said = describe_table(LatencyTable.load(write(fingerprint=bare.to_dict()))).split("\n")
    assert said[0].endswith("; onnxruntime 1.0, fp32, batch 1, 1 thread.")
    assert len(said) == 3
    assert "None" not in " ".join(said)


def test_contents_and_sessions(write: Write, rounds: Rounds, fingerprint: Fingerprint) -> None:
    newer = replace(fingerprint, driver="570", gpu="RTX")
    network = {"architecture": {}, "space_hash": "cafe"}
    begun = replace(fingerprint, driver="560", gpu="RTX")
    lines = [
        session(1, begun, began="2026-01-30T23:59:00Z"),
        *rounds("reference", [1.0], type="reference"),
        *rounds("a", [1.0]),
        *rounds("b", [1.0]),
        *rounds("n", [1.0], type="network", **network),
        *rounds("v", [1.0], type="validation", **network),
        *rounds("w", [1.0], type="validation", **network),
        {"key": "c", "session": 1, "error": "cannot"},
        {"type": "merge", "session": 2, "source": "hers.jsonl"},
        session(2, newer, began="2026-02-01T00:00:00Z"),
        *rounds("a", [2.0], session=2),
    ]
    said = describe_table(LatencyTable.load(write(*lines, fingerprint=begun.to_dict())))
    assert (
        "It holds 2 blocks, 1 whole network and 2 held-out networks, measured in 2 sessions, "
        "2026-01-30 to 2026-02-01; 1 key could not run.\n"
    ) in said
    assert "\nThe machine was steady: 0 of 1 stretches" in said
    assert "\n1 session merged from hers.jsonl.\n" in said
    assert "\nSession 2 was measured with driver '570', not '560'.\n" in said


def test_why_something_could_not_run_and_what_to_do(write: Write, rounds: Rounds) -> None:
    network = {"type": "network", "architecture": {}, "space_hash": "cafe"}
    errors = [
        {"key": "n", "session": 1, "error": "no memory", **network},
        {"key": "b", "session": 1, "error": "no kernel\n  of this kind."},
    ]
    said = describe_table(LatencyTable.load(write(*rounds("a", [1.0]), *errors)))
    assert "2 keys could not run.\nb could not run because of: no kernel of this kind. If" in said
    assert "`edgesearch profile`" in said
    assert "with profile.retry_errors=true.\n" in said
    said = describe_table(LatencyTable.load(write(*rounds("a", [1.0]), errors[0])))
    assert "\nn could not run because of: no memory. If" in said


def test_an_unsettled_machine_is_not_passed_over(write: Write, rounds: Rounds) -> None:
    said = describe_table(LatencyTable.load(write(*rounds("a", [1.0]))))
    assert "\nTHE MACHINE NEVER SETTLED: " in said
    assert "measured in 1 session.\n" in said


def test_errors_of_predictions(
    write: Write, rounds: Rounds, correction: Callable[..., dict[str, Any]]
) -> None:
    fitted = correction("0123456789abcdef", networks=12, fit_mape=0.011, loo_mape=0.02)
    begin = "Predictions in the space 01234567 are fitted to 12 networks: mean error 1.1%"
    path = write(*rounds("a", [1.0]), fitted)
    said = describe_table(LatencyTable.load(path)).split("\n")[-1]
    assert said == f"{begin}, 2.0% on each when it is left out; not validated on others yet."
    validation = {"n": 24, "mape": 0.025, "worst": 0.06}
    path = write(*rounds("a", [1.0]), fitted, {**fitted, "validation": validation})
    said = describe_table(LatencyTable.load(path)).split("\n")[-1]
    assert said == f"{begin}, 2.0% on each when it is left out; 2.5% (worst 6.0%) on 24 others."
    older = {name: value for name, value in fitted.items() if name != "loo_mape"}
    said = describe_table(LatencyTable.load(write(*rounds("a", [1.0]), older))).split("\n")[-1]
    assert said == f"{begin}; not validated on others yet."
    said = describe_table(LatencyTable.load(write(*rounds("a", [1.0])))).split("\n")[-1]
    assert said.startswith("No prediction of whole networks is fitted to it")


def test_a_measured_table_says_when(build: Callable[..., Any], blocks: list[Workload]) -> None:
    before = datetime.now(timezone.utc).replace(microsecond=0)
    table = build(blocks)
    (only,) = table.sessions
    began = datetime.strptime(only.began, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert before <= began <= datetime.now(timezone.utc)
    assert only.fingerprint == table.fingerprint.to_dict()
    assert f"It holds 3 blocks, measured in 1 session, {began:%Y-%m-%d}" in describe_table(table)
