"""Power: sensors as files, and graphics cards with a small script for `nvidia-smi`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from devices.power import PowerMeter

Tree = Callable[..., Path]
Program = Callable[..., Path]
COUNTERS = {"sys/class/powercap/intel-rapl:0/energy_uj": "9000000"}


def test_a_card_is_asked_for_its_own(tree: Tree, program: Program, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    program("nvidia-smi", f'echo "$*" >> {asked}\necho 123.40')
    power = PowerMeter(tree(COUNTERS), of_card=True)
    assert power.mean_w() is None  # not that of the processor
    power.sample()
    assert power.mean_w() == pytest.approx(123.4)
    assert asked.read_text() == "--query-gpu=power.draw --format=csv,noheader,nounits\n"
    power.restart()
    assert power.mean_w() is None


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card may be asked as often as it answers."""
    monkeypatch.setattr("devices.power.SECONDS_BETWEEN_QUESTIONS", 0)


def sample_and_wait(power: PowerMeter) -> None:
    power.sample()
    power._wait_for_card()


@pytest.mark.usefixtures("eager")
def test_what_it_told_last_counts(tree: Tree, program: Program) -> None:
    power = PowerMeter(tree({}), of_card=True)
    for answer in ("echo 20", "echo 250"):
        program("nvidia-smi", answer)
        sample_and_wait(power)
    assert power.mean_w() == pytest.approx(250)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("script", ["exit 9", "echo '[N/A]'"])
def test_a_question_that_fails_undoes_no_answer(tree: Tree, program: Program, script: str) -> None:
    power = PowerMeter(tree({}), of_card=True)
    for answer in ("echo 250", script):
        program("nvidia-smi", answer)
        sample_and_wait(power)
    assert power.mean_w() == pytest.approx(250)


@pytest.mark.usefixtures("eager")
def test_what_it_tells_after_the_work_does_not_count(
    tree: Tree, program: Program, tmp_path: Path
) -> None:
    power = PowerMeter(tree({}), of_card=True)
    program("nvidia-smi", "echo 250")
    sample_and_wait(power)
    # It answers once the test lets it.
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    program("nvidia-smi", f"read line < {gate}\necho 20")
    power.sample()
    assert power.mean_w() == pytest.approx(250)
    gate.write_text("now\n")
    power.restart()
    assert power.mean_w() is None


def test_it_is_not_asked_all_the_time(
    tree: Tree, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("devices.power.time.monotonic", lambda: now[0])
    asked = tmp_path / "asked"
    program("nvidia-smi", f"echo once >> {asked}\necho 1")
    power = PowerMeter(tree({}), of_card=True)
    for _ in range(10):
        now[0] += 0.05
        sample_and_wait(power)
    assert 2 <= asked.read_text().count("once") <= 3


def test_the_one_that_the_runtimes_see(
    tree: Tree, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("nvidia-smi", 'case "$*" in *--id=3) echo 77 ;; *) echo 1 ;; esac')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    power = PowerMeter(tree({}), of_card=True)
    power.sample()
    assert power.mean_w() == pytest.approx(77)


@pytest.mark.parametrize("script", ["echo '[N/A]'", "exit 9", "echo"])
def test_a_card_that_does_not_tell(tree: Tree, program: Program, script: str) -> None:
    program("nvidia-smi", script)
    power = PowerMeter(tree(COUNTERS), of_card=True)
    power.sample()
    assert power.mean_w() is None


def test_a_jetson_tells_of_the_whole_module(tree: Tree, program: Program) -> None:
    program("nvidia-smi", "echo 1")
    folder = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4"
    rail = {"in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "2000"}
    power = PowerMeter(tree({f"{folder}/{k}": v for k, v in rail.items()}), of_card=True)
    power.sample()
    assert power.mean_w() == pytest.approx(10)


def write(folder: Path, **values: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")


def test_power_of_a_jetson(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4"
    write(folder, in1_label="VDD_IN", in1_input=5000, curr1_input=1000)
    write(folder, in2_label="VDD_CPU_GPU_CV", in2_input=5000, curr2_input=400)
    power = PowerMeter(tmp_path)
    assert power.mean_w() is None
    power.sample()
    write(folder, curr1_input=2000)
    power.sample()
    assert power.mean_w() == pytest.approx(7.5)
    power.restart()
    power.sample()
    assert power.mean_w() == pytest.approx(10.0)


def test_power_of_all_rails_where_none_is_the_total(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon4"
    write(folder, in1_label="VDD_GPU_SOC", in1_input=10000, curr1_input=300)
    write(folder, in2_label="VDD_CPU_CV", in2_input=10000, curr2_input=200)
    power = PowerMeter(tmp_path)
    power.sample()
    assert power.mean_w() == pytest.approx(5.0)


def test_power_of_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("devices.power.time.monotonic", lambda: now[0])
    folder = tmp_path / "sys/class/powercap/intel-rapl:0"
    write(folder, energy_uj=9_000_000, max_energy_range_uj=10_000_000)
    power = PowerMeter(tmp_path)
    now[0] += 2
    write(folder, energy_uj=5_000_000)  # it has begun anew
    assert power.mean_w() == pytest.approx(3.0)


def test_no_sensors_no_power(tmp_path: Path) -> None:
    power = PowerMeter(tmp_path)
    power.sample()
    assert power.mean_w() is None
