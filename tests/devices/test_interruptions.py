"""Runs that other programs interrupt, with real processes."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices import interruptions
from devices.interruptions import RunWatch, thread_ids

linux = pytest.mark.skipif(sys.platform != "linux", reason="binds processes to a processor")


def compute(ms: float) -> float:
    """Use so much processor time; returns what it took."""
    begin, end = time.perf_counter(), time.thread_time() + ms / 1e3
    while time.thread_time() < end:
        pass
    return (time.perf_counter() - begin) * 1e3


@pytest.fixture
def neighbour() -> Iterator[int]:
    """A busy process on a processor, to which this thread is bound as well."""
    own = os.sched_getaffinity(0)
    cpu = max(own)
    code = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    os.sched_setaffinity(0, {cpu})
    try:
        time.sleep(0.2)
        yield cpu
    finally:
        os.sched_setaffinity(0, own)
        process.kill()
        process.wait()


@linux
def test_a_run_beside_a_busy_neighbour_waits(neighbour: int) -> None:
    found = []
    with RunWatch(()) as watch:
        for _ in range(5):  # the neighbour may also take its turn between the two clocks
            watch.start()
            took_ms = compute(60)
            found.append((watch.waited_ms(took_ms), took_ms - 60))
    assert all(waited_ms > max(5, 0.9 * rest_ms) for waited_ms, rest_ms in found)
    assert any(waited_ms == pytest.approx(rest_ms, rel=0.1) for waited_ms, rest_ms in found)


@linux
@pytest.mark.parametrize("hidden", [False, True])
def test_workers_that_wait_are_seen(neighbour: int, tmp_path: Path, hidden: bool) -> None:
    """This thread sleeps while another one, bound to the busy processor, computes."""
    begin, done, end = (threading.Event() for _ in range(3))
    before = thread_ids()
    worker = threading.Thread(target=lambda: (begin.wait(), compute(60), done.set(), end.wait()))
    worker.start()
    (number,) = thread_ids() - before
    # Where the system hides its tasks, involuntary switches are counted.
    with RunWatch([number], **({"tasks": tmp_path} if hidden else {})) as watch:
        watch.start()
        begin.set()
        done.wait()
        waited_ms = watch.waited_ms(60)
        end.set()
        worker.join()
        watch.start()  # an ended thread is no failure
    assert waited_ms > (1 if hidden else 5)


def test_a_run_that_was_not_interrupted_did_not_wait() -> None:
    with RunWatch(()) as watch:
        for _ in range(50):
            watch.start()
            if watch.waited_ms(compute(0.2)) == 0:
                return
    pytest.fail("each of fifty runs of 0.2 ms was interrupted")


def test_what_a_gpu_computes_is_not_watched() -> None:
    with RunWatch(None) as watch:
        watch.start()
        time.sleep(0.01)
        assert watch.waited_ms(10) == 0


@linux
def test_too_many_open_files_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(interruptions.os, "open", refuse)
    with RunWatch([threading.get_native_id()]) as watch:
        watch.start()
        assert watch.waited_ms(1e6) == 0
