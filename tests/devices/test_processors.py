"""Which processors this process may use, and who else uses them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devices.errors import DeviceError
from devices.processors import LEAST_SECONDS, OtherPrograms, Processors, read_processors
from devices.runtimes import open_runtime
from devices.spec import DeviceSpec

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(sys.platform != "linux", reason="affinity as on Linux")


def machine(root: Path, **files: str) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1.5),
        # The strictest of a group and those above it.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "150000 100000",
                "sys/fs/cgroup/a/cpu.max": "50000 100000",
            },
            0.5,
        ),
        # A container with the host's path, whose mount is its own group.
        ({"proc/self/cgroup": "0::/docker/1f\n", "sys/fs/cgroup/cpu.max": "25000 100000"}, 0.25),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/a\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "75000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "50000\n",
            },
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_the_quota_of_the_control_group(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    assert read_processors(machine(tmp_path, **files)).quota == quota


@linux
def test_siblings_share_a_core(tmp_path: Path) -> None:
    own = sorted(os.sched_getaffinity(0))
    everyone = ",".join(map(str, own))
    place = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    shared = machine(tmp_path, **{place.format(cpu): everyone for cpu in own})
    assert read_processors(shared).cores == 1
    assert read_processors(tmp_path / "hidden").cores == len(own)


@linux
def test_what_a_process_bound_to_one_processor_sees() -> None:
    cpu = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{cpu}}}); "
        "from devices.processors import read_processors as r; "
        "from devices.runtimes.open_runtime import open_runtime; "
        "from devices.spec import DeviceSpec; print(r()); "
        "open_runtime(DeviceSpec('local-cpu', threads=2))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if (os.cpu_count() or 1) > 1:
        assert done.stdout == f"1 of {os.cpu_count()} processors (CPU affinity: {cpu})\n"
    assert "2 processors for the 2 threads of the device 'local-cpu'; found: 1" in done.stderr
    assert "Set device.threads=1" in done.stderr


@pytest.mark.parametrize(
    ("found", "threads", "message"),
    [
        (Processors(2, (0, 1), None, 2), 3, "found: 2 processors. Set device.threads=2."),
        (Processors(1, (0,), None, 1), 2, "found: 1 processor. Set device.threads=1."),
        (
            Processors(8, (0, 1, 2, 3), 1.5, 4),
            2,
            r"found: 1.5 of 8 processors \(CPU affinity: 0, 1, 2, 3; CPU quota of its control "
            r"group: 1.5\). Set device.threads=1 or give this process more",
        ),
        (Processors(2, (0, 1), 0.5, 2), 1, None),
        (Processors(2, (), None, 2), 2, None),
    ],
)
def test_more_threads_than_processors_are_refused(
    monkeypatch: pytest.MonkeyPatch, found: Processors, threads: int, message: str | None
) -> None:
    monkeypatch.setattr(open_runtime, "read_processors", lambda: found)
    spec = DeviceSpec("local-cpu", threads=threads)
    if message is None:
        assert open_runtime.open_runtime(spec).settings["threads"] == threads
        return
    with pytest.raises(DeviceError, match=message):
        open_runtime.open_runtime(spec)


def test_others_are_what_this_process_did_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = {"monotonic": 100.0, "process_time": 7.0}
    for name in clocks:
        monkeypatch.setattr(time, name, lambda name=name: clocks[name])
    hertz = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"

    def pass_time(seconds: float, own: float, busy: float, steal: float) -> None:
        clocks["monotonic"] += seconds
        clocks["process_time"] += own
        ticks = [int(busy * hertz + 900), 0, 0, int(clocks["monotonic"] * hertz), 5, 0, 0]
        ticks += [int(steal * hertz), 3, 3]  # guest time is part of the first
        own_line = " ".join(map(str, ticks))
        stat.write_text(f"cpu  9 9 9\ncpu0 {own_line}\ncpu1 1 1 1 1 1 1 1 1 1 1\nintr 5\n")

    pass_time(0, 0, 0, 0)
    others = OtherPrograms([0], stat)
    pass_time(1, 0.25, 1, 0)
    assert others.used() == pytest.approx(0.75)
    pass_time(LEAST_SECONDS / 2, 0, 1, 0)
    assert others.used() == pytest.approx(0.75)  # too short to tell
    pass_time(1, 0, 1, 0.5)
    assert others.used() == pytest.approx(0.5 / (1 + LEAST_SECONDS / 2), rel=0.05)


def test_others_are_unknown_without_the_file(tmp_path: Path) -> None:
    assert OtherPrograms([0], tmp_path / "none").used() is None
    (tmp_path / "stat").write_text("")
    assert OtherPrograms([0], tmp_path / "stat").used() is None
