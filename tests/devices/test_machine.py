"""What is read off boards and computers, from trees of files like theirs."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devices import machine
from devices.machine import read_machine, usable_memory

Tree = Callable[..., Path]
Program = Callable[..., Path]

PI_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

processor\t: 1
Features\t: fp sve2
"""

X86_CPUINFO = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 97
model name\t: AMD Ryzen 9 7950X 16-Core Processor
flags\t\t: fpu sse sse2 fma avx f16c avx2 avx512f avx512_bf16 avx512_vnni avx512vbmi

processor\t: 1
model name\t: another
"""


def cpufreq(cpu: int, governor: str, low: int, high: int) -> dict[str, str | bytes]:
    folder = f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
    return {
        f"{folder}/scaling_governor": f"{governor}\n",
        f"{folder}/scaling_min_freq": f"{low}\n",
        f"{folder}/scaling_max_freq": f"{high}\n",
    }


def zone(number: int, kind: str | None, temperature: str) -> dict[str, str | bytes]:
    folder = f"sys/class/thermal/thermal_zone{number}"
    found: dict[str, str | bytes] = {f"{folder}/temp": f"{temperature}\n"}
    return found if kind is None else {**found, f"{folder}/type": f"{kind}\n"}


@pytest.fixture
def cpu() -> int:
    """A logical core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(os.sched_getaffinity(0))
    return 0


def test_a_raspberry_pi(tree: Tree, cpu: int) -> None:
    root = tree(
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/cpuinfo": PI_CPUINFO,
            **cpufreq(cpu, "ondemand", 1500000, 2400000),
            **zone(0, "cpu-thermal", "48850"),
        }
    )
    found = read_machine(root)
    assert found["chip"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["instruction_sets"] == ("asimd", "asimdhp", "asimddp")
    assert found["governor"] == "ondemand"
    assert found["frequency_khz"] == (1500000, 2400000)
    assert found["temperature_c"] == 48.85


def test_a_jetson(tree: Tree, program: Program, cpu: int) -> None:
    program("nvpmodel", 'test "$1" = -q && printf "NV Fan Mode:quiet\\nNV Power Mode: 15W\\n0\\n"')
    root = tree(
        {
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "proc/cpuinfo": PI_CPUINFO,
            **cpufreq(cpu, "schedutil", 729600, 1510400),
            **zone(0, "cpu-thermal", "51250"),
            **zone(1, "PMIC-Die", "100000"),
            **zone(2, "tj-thermal", "51500"),
        }
    )
    found = read_machine(root)
    assert found["chip"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found["power_mode"] == "15W"
    assert found["temperature_c"] == 51.5


def test_a_computer(tree: Tree, cpu: int) -> None:
    root = tree({"proc/cpuinfo": X86_CPUINFO, **cpufreq(cpu, "powersave", 400000, 5700000)})
    found = read_machine(root)
    assert found["chip"] == "AMD Ryzen 9 7950X 16-Core Processor (cpu family 25, model 97)"
    assert found["instruction_sets"] == (
        *("avx", "avx2", "fma", "f16c"),
        *("avx512f", "avx512_vnni", "avx512_bf16"),
    )
    assert (found["governor"], found["frequency_khz"]) == ("powersave", (400000, 5700000))
    assert found["temperature_c"] is None


def test_nothing_can_be_read(tree: Tree, program: Program) -> None:
    found = read_machine(tree({}))
    assert found["chip"]
    assert found["instruction_sets"] == ()
    for field in ("governor", "frequency_khz", "power_mode", "temperature_c"):
        assert found[field] is None
    # What does not come from files is there all the same.
    assert found["cores"] >= 1
    assert (found["machine"], found["python"]) == (platform.machine(), platform.python_version())
    assert found["os"].startswith(platform.system())


def test_files_that_hold_nonsense(tree: Tree, cpu: int) -> None:
    root = tree(
        {
            "proc/device-tree/model": "\0\n",
            "proc/cpuinfo": b"\xff\xfe no colon\n",
            **cpufreq(cpu, "", 0, 0),
            f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_max_freq": "<unsupported>\n",
            **zone(0, "cpu", "nothing"),
        }
    )
    found = read_machine(root)
    assert found["chip"]
    assert found["instruction_sets"] == ()
    for field in ("governor", "frequency_khz", "temperature_c"):
        assert found[field] is None


class TestChip:
    def test_an_arm_server_has_no_name(self, tree: Tree) -> None:
        root = tree({"proc/cpuinfo": PI_CPUINFO})
        assert machine.chip(root) == "Arm implementer 0x41 part 0xd0b"

    def test_a_virtual_machine_that_hides_the_model(self, tree: Tree) -> None:
        root = tree({"proc/cpuinfo": "model name : AMD EPYC\ncpu family : 26\n\n"})
        assert machine.chip(root) == "AMD EPYC (cpu family 26)"
        root = tree({"proc/cpuinfo": "model name : QEMU\n"})
        assert machine.chip(root) == "QEMU"


class TestClocks:
    def test_cores_that_differ(self, tree: Tree) -> None:
        root = tree(
            {
                **cpufreq(0, "schedutil", 600000, 1800000),
                **cpufreq(1, "schedutil", 600000, 1800000),
                **cpufreq(4, "performance", 400000, 2400000),
            }
        )
        assert machine.governor(root, [0, 1, 4]) == "performance, schedutil"
        assert machine.frequency_khz(root, [0, 1, 4]) == (400000, 2400000)
        # Those that the process may not use do not count.
        assert machine.governor(root, [0, 1]) == "schedutil"
        assert machine.frequency_khz(root, [0, 1]) == (600000, 1800000)
        assert machine.governor(root, [7]) is None
        assert machine.frequency_khz(root, [7]) is None


class TestTemperature:
    def test_the_hottest_plausible_zone(self, tree: Tree) -> None:
        root = tree(
            {
                **zone(0, None, "30000"),
                **zone(1, "acpitz", "-274000"),
                **zone(2, "x86_pkg_temp", "61500"),
                **zone(3, "broken", "200000"),
                **zone(4, "pmic-die", "100000"),
            }
        )
        assert machine.temperature_c(root) == 61.5

    def test_below_zero(self, tree: Tree) -> None:
        assert machine.temperature_c(tree(zone(0, "outdoors", "-12500"))) == -12.5

    def test_a_sensor_that_cannot_be_read(self, tree: Tree) -> None:
        root = tree(zone(0, "cpu", "40000"))
        (root / "sys/class/thermal/thermal_zone1/temp").mkdir(parents=True)
        assert machine.temperature_c(root) == 40.0


class TestPowerMode:
    @pytest.mark.parametrize("name", ["MAXN", "MODE_15W", "MAXN_SUPER"])
    def test_its_name(self, program: Program, name: str) -> None:
        program("nvpmodel", f'echo "NVPM WARN: fan mode is not set!"; echo "NV Power Mode: {name}"')
        assert machine.power_mode() == name

    @pytest.mark.parametrize(
        "script", ["exit 1", "echo nothing of it", "echo NV Power Mode: 15W; exit 3"]
    )
    def test_a_program_that_does_not_say(self, program: Program, script: str) -> None:
        program("nvpmodel", script)
        assert machine.power_mode() is None


class TestAskProgram:
    def test_its_answer(self, program: Program) -> None:
        program("tell", 'echo "  $1, $2  "; echo for people >&2')
        assert machine.ask_program("tell", "a b", "c") == "a b, c"

    def test_none_that_is_not_there(self, program: Program) -> None:
        assert machine.ask_program("no-such-program") is None

    def test_none_that_says_nothing(self, program: Program) -> None:
        program("mute", "exit 0")
        assert machine.ask_program("mute") is None

    def test_none_that_cannot_be_started(self, program: Program) -> None:
        path = program("broken", "")
        path.write_bytes(b"\x7fELF nothing")
        assert machine.ask_program("broken") is None

    def test_none_that_hangs(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "_PROGRAM_TIMEOUT_S", 0.2)
        program("hang", "/bin/sleep 20")
        begun = time.monotonic()
        assert machine.ask_program("hang") is None
        assert time.monotonic() - begun < 10

    def test_it_gets_no_input(self, program: Program) -> None:
        program("ask", "read answer || echo nobody is there")
        assert machine.ask_program("ask") == "nobody is there"

    def test_bytes_that_are_no_text(self, program: Program) -> None:
        program("noise", r"printf '\377 Orin'")
        assert machine.ask_program("noise") == "\N{REPLACEMENT CHARACTER} Orin"

    def test_administrators_programs_are_found(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = program("nvpmodel", "echo here").parent
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(machine, "_ADMINISTRATORS_PATH", "/nowhere")
        assert machine.ask_program("nvpmodel") is None
        monkeypatch.setattr(machine, "_ADMINISTRATORS_PATH", str(folder))
        assert machine.ask_program("nvpmodel") == "here"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /sys")
def test_this_machine() -> None:
    found = read_machine()
    assert found["affinity"] == tuple(sorted(os.sched_getaffinity(0)))
    assert found["cores"] == len(found["affinity"])
    assert found["priority"] == os.getpriority(os.PRIO_PROCESS, 0)
    assert found["memory_bytes"] > 1 << 28


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets the affinity")
def test_cores_are_those_that_the_process_may_use(tree: Tree) -> None:
    before = os.sched_getaffinity(0)
    last = max(before)
    root = tree({**cpufreq(last, "performance", 1, 2), **cpufreq(last + 1, "powersave", 1, 9)})
    os.sched_setaffinity(0, {last})
    try:
        found = read_machine(root)
    finally:
        os.sched_setaffinity(0, before)
    assert (found["cores"], found["affinity"]) == (1, (last,))
    assert (found["governor"], found["frequency_khz"]) == ("performance", (1, 2))


GIB = 1 << 30


class TestUsableMemory:
    """Limits on a process count, as in a container that has less than its machine."""

    def test_the_strictest_group_of_version_2(self, tree: Tree) -> None:
        root = tree(
            {
                "proc/self/cgroup": "0::/jobs/run\n",
                "sys/fs/cgroup/jobs/run/memory.max": "max\n",
                "sys/fs/cgroup/jobs/memory.max": f"{GIB}\n",
            }
        )
        assert usable_memory(root) == GIB

    def test_a_group_of_version_1(self, tree: Tree) -> None:
        root = tree(
            {
                "proc/self/cgroup": "5:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            }
        )
        assert usable_memory(root) == 2 * GIB

    def test_without_a_limit_it_is_the_machines(self, tree: Tree) -> None:
        assert usable_memory(tree({})) == read_machine()["memory_bytes"]

    def test_a_real_limit_of_the_address_space(self) -> None:
        code = (
            "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
            "from devices.machine import usable_memory; print(usable_memory())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert int(done.stdout) <= GIB, done.stderr
