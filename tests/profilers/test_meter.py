"""What measures here, beside its own models."""

from collections.abc import Callable
from pathlib import Path

import pytest

from devices import DeviceSpec, Fingerprint, OnnxRuntime, ReplayRuntime
from devices.errors import EngineError
from devices.interruptions import RunWatch
from profilers import LocalMeter, MeasureConfig, ProfilerError, Workload, open_meter
from profilers.meter import write_own_models
from profilers.reloading import ROUNDS_PER_LOAD


def test_what_is_given_for_each_round(
    blocks: list[Workload], fingerprint: Fingerprint, exactly: Callable[..., MeasureConfig]
) -> None:
    meter = LocalMeter(OnnxRuntime(), fingerprint)
    found = list(meter.measure(blocks[:2], blocks[2:], exactly(rounds=2), {}))
    assert meter.fingerprints == [fingerprint]
    for number in (1, 2):
        keys = [f"anchor {m.key}" if m.anchor else m.key for m in found if m.round == number]
        assert keys[0] == keys[-1] == "reference"
        assert sorted(keys[1:-1]) == ["anchor block/c", "block/a", "block/b", "overhead"]
    assert {m.session for m in found} == {0}
    meter.close()


def test_own_models_can_be_given(
    blocks: list[Workload],
    fingerprint: Fingerprint,
    exactly: Callable[..., MeasureConfig],
    tmp_path: Path,
) -> None:
    # As on a board without the package onnx.
    paths = write_own_models(tmp_path)
    meter = LocalMeter(OnnxRuntime(), fingerprint, paths)
    keys = {m.key for m in meter.measure(blocks[:1], (), exactly(rounds=1), {})}
    assert keys == {"reference", "overhead", "block/a"}
    paths["overhead"].unlink()
    with pytest.raises(EngineError, match="overhead.onnx"):
        list(meter.measure(blocks[:1], (), exactly(rounds=1), {}))


def test_a_measuring_that_is_given_up_closes_its_sessions(
    write_block: Callable[[str], Path], fingerprint: Fingerprint
) -> None:
    sessions = []

    class Keeping(OnnxRuntime):
        def load(self, path: Path):  # type: ignore[no-untyped-def]
            sessions.append(super().load(path))
            return sessions[-1]

    measuring = LocalMeter(Keeping(), fingerprint).measure(
        [Workload("a", write_block("a"))], (), MeasureConfig(), {}
    )
    next(measuring)
    measuring.close()  # type: ignore[attr-defined]
    assert len(sessions) == 3
    for session in sessions:
        with pytest.raises(EngineError, match="closed"):
            session.time_ms(1)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ProfilerError, match="to write two small models .*; found: Not a dir"):
        write_own_models(tmp_path / "file" / "x")


def test_a_device_opens_its_meter(
    blocks: list[Workload], exactly: Callable[..., MeasureConfig]
) -> None:
    meter = open_meter(DeviceSpec("local-cpu"))
    (fingerprint,) = meter.fingerprints
    assert fingerprint.runtime == "onnxruntime"
    found = [m for m in meter.measure(blocks, (), exactly(rounds=1), {}) if m.key == "block/a"]
    assert [m.round for m in found] == [1]


def test_errors_of_anchors_are_passed_over(
    fingerprint: Fingerprint, exactly: Callable[..., MeasureConfig]
) -> None:
    runtime = ReplayRuntime({"reference": [1.0], "overhead": [0.1], "a": [1.0]})
    meter = LocalMeter(runtime, fingerprint)
    workloads = [Workload("a", Path("a")), Workload("b", Path("b"))]
    found = list(meter.measure(workloads, [Workload("c", Path("c"))], exactly(rounds=1), {}))
    errors = [m.key for m in found if isinstance(m.outcome, EngineError)]
    assert errors == ["b"]


def test_an_engine_is_loaded_anew_every_few_rounds(
    write_block: Callable[[str], Path],
    fingerprint: Fingerprint,
    exactly: Callable[..., MeasureConfig],
) -> None:
    loaded: list[str] = []
    opened = []

    class Counting(OnnxRuntime):
        def load(self, path: Path):  # type: ignore[no-untyped-def]
            loaded.append(path.stem)
            opened.append(super().load(path))
            return opened[-1]

    path = write_block("a")
    rounds = 2 * ROUNDS_PER_LOAD
    found = LocalMeter(Counting(), fingerprint).measure(
        [Workload("a", path)], (), exactly(rounds=rounds), {}
    )
    assert sum(m.key == "a" for m in found) == rounds
    # The warming run counts as a round; the profiler's own models are loaded once.
    assert loaded.count(path.stem) == 1 + rounds // ROUNDS_PER_LOAD
    assert len(loaded) == 3 + rounds // ROUNDS_PER_LOAD
    for session in opened:
        with pytest.raises(EngineError, match="closed"):
            session.time_ms(1)


def test_an_engine_that_cannot_be_loaded_again_is_an_error_of_its_own(
    write_block: Callable[[str], Path],
    fingerprint: Fingerprint,
    exactly: Callable[..., MeasureConfig],
) -> None:
    paths = {key: write_block(key) for key in "ab"}
    rounds = 2 * ROUNDS_PER_LOAD
    workloads = [Workload(key, path) for key, path in paths.items()]
    failed, timed = [], []
    measuring = LocalMeter(OnnxRuntime(), fingerprint).measure(
        workloads, (), exactly(rounds=rounds), {}
    )
    for found in measuring:
        paths["a"].unlink(missing_ok=True)
        (failed if isinstance(found.outcome, EngineError) else timed).append(found.key)
    assert failed == ["a"]
    assert timed.count("b") == rounds
    assert 0 < timed.count("a") < rounds


def test_engines_of_a_gpu_are_loaded_once(
    replay: Callable[..., ReplayRuntime], fingerprint: Fingerprint, tmp_path: Path
) -> None:
    runtime = replay(a=[1.0, 2.0, 3.0])
    loaded = []
    load = runtime.load
    runtime.load = lambda path: loaded.append(path) or load(path)  # type: ignore[assignment]
    config = MeasureConfig(rounds=3 * ROUNDS_PER_LOAD, runs=1)
    list(LocalMeter(runtime, fingerprint).measure([Workload("a", Path("a"))], (), config, {}))
    assert loaded.count(Path("a")) == 1


def test_threads_of_an_engine_that_is_loaded_anew_are_watched(
    write_block: Callable[[str], Path],
    fingerprint: Fingerprint,
    exactly: Callable[..., MeasureConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched, opened = [], []

    class Noting(RunWatch):
        def __init__(self, workers: tuple[int, ...] | None, waiting: float) -> None:
            watched.append(workers)
            super().__init__(workers, waiting)

    class Keeping(OnnxRuntime):
        def load(self, path: Path):  # type: ignore[no-untyped-def]
            opened.append(super().load(path))
            return opened[-1]

    monkeypatch.setattr("profilers.measure.RunWatch", Noting)
    runtime = Keeping(threads=2)
    workloads = [Workload("a", write_block("a"))]
    rounds = ROUNDS_PER_LOAD + 1
    list(LocalMeter(runtime, fingerprint).measure(workloads, (), exactly(rounds=rounds), {}))
    *_, first, second = (session.workers for session in opened)
    assert first != second
    of_engine = [workers for workers in watched if workers in (first, second)]
    assert of_engine == [first] * ROUNDS_PER_LOAD + [second] * 2
