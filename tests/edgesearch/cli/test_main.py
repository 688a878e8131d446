"""The command line as a user calls it: exit codes, and what it prints."""

import json
import os
import subprocess
import sys

import onnxruntime
import pytest
from typer.testing import CliRunner

import edgesearch
from devices import known_devices
from edgesearch.cli.main import app

COMMANDS = (
    "bench clean compare configs devices evaluate export finetune init keys plan pretrain profile "
    "rank report run search spaces table validate weights"
)


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def in_a_process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "edgesearch", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
        timeout=600,
    )


def test_help_lists_the_commands():
    done = in_a_process("--help")
    assert done.returncode == 0
    assert all(command in done.stdout.decode() for command in COMMANDS.split())
    assert sorted(command.name for command in app.registered_commands) == COMMANDS.split()
    assert "Usage" in call().output


def test_version():
    assert call("--version").stdout == f"edgesearch {edgesearch.__version__}\n"


def test_a_console_that_lacks_characters_ends_no_command():
    done = in_a_process("devices", "show", "raspberry-pi-5", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"raspberry-pi-5  Raspberry Pi 5 over ssh")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quickstrat"], "Did you mean quickstart?"),
        (["profile", "quickstart", "device.name=local-cpy"], "Did you mean local-cpu?"),
        (["pretrain", "quickstart", "pretrain.epoch=3"], "did you mean pretrain.epochs?"),
        (["search", "quickstart", "output_dir=out"], "edgesearch profile"),
        (["export", "quickstart", "output_dir=out"], "edgesearch search"),
        (["evaluate", "quickstart", "output_dir=out"], "edgesearch pretrain"),
        (["pretrain", "cifar10", "output_dir=out", "data.root=nowhere"], "nothing of that name"),
        (["profile", "quickstart", "output_dir=file"], "Choose another folder: output_dir=PATH."),
        (["devices", "show", "raspberry"], "a device of the catalog"),
        (["table", "nowhere.jsonl"], "to read nowhere.jsonl"),
        (["profile", "quickstart", "profile.accept=[drivr]"], "found: 'drivr'"),
    ],
)
def test_bad_input_is_one_message_and_2(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    done = call(*arguments)
    assert done.exit_code == 2, done.stderr
    assert done.stderr.count("error: required:") == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_all_faults_of_a_configuration_at_once():
    done = call("run", "quickstart", "pretrain.lr=fast", "serach.images=3", "space.name=tiny")
    assert done.exit_code == 2
    for path in ("pretrain.lr", "serach", "space"):
        assert f"- {path}" in done.stderr


@pytest.mark.parametrize("gpu", [None, "NVIDIA H100"])
def test_devices(monkeypatch, gpu):
    found = dict.fromkeys(("gpu", "compute_capability", "gpu_memory_bytes", "driver"))
    monkeypatch.setattr("edgesearch.stages.devices.read_gpu", lambda: {**found, "gpu": gpu})
    shown = call("devices").stdout
    for name in known_devices():
        assert f"\n{name} " in f"\n{shown}"
    assert f"onnxruntime: {onnxruntime.__version__} (" in shown
    assert "CPUExecutionProvider" in shown
    assert f"\n  gpu: {gpu or 'no NVIDIA GPU detected'}\n" in shown
    assert shown.count("gpu: ") == 1
    result = json.loads(call("devices", "--json").stdout)
    assert "local-cpu" in [device["name"] for device in result["devices"]]
    assert result["machine"]["cores"] >= 1
    assert result["gpu"]["gpu"] == gpu
    versions = {runtime["name"]: runtime["version"] for runtime in result["runtimes"]}
    assert versions["onnxruntime"] == onnxruntime.__version__


def test_devices_show_says_what_to_install():
    one = call("devices", "show", "raspberry-pi-5")
    assert one.stdout.startswith("raspberry-pi-5  Raspberry Pi 5 over ssh")
    assert "  transport: ssh\n" in one.stdout
    assert "pip install numpy onnxruntime" in one.stdout
    # The machine on which one reads this is another one.
    for line in ("detected here:", "runtimes:", "cores:", "warning:"):
        assert line not in one.stdout
    assert "machine" in json.loads(call("devices", "show", "raspberry-pi-5", "--json").stdout)
    assert call("devices", "show").exit_code == 2
