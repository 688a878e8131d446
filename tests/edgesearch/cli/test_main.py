"""The command line as a user calls it: processes, exit codes, what they print."""

import json
import subprocess
import sys

import onnxruntime
import pytest
from typer.testing import CliRunner

from devices import known_devices
from edgesearch.cli.main import app


def edgesearch(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "edgesearch", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=600,
    )


def test_help_lists_the_commands():
    shown = edgesearch("--help").stdout
    commands = "devices profile table pretrain search export run evaluate bench"
    for command in commands.split():
        assert command in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quickstrat"], "Did you mean 'quickstart'?"),
        (["profile", "quickstart", "device.name=local-cpy"], "Did you mean 'local-cpu'?"),
        (["pretrain", "quickstart", "pretrain.epoch=3"], "epochs"),
        (["search", "quickstart"], "edgesearch profile"),
        (["export", "quickstart"], "edgesearch search"),
        (["evaluate", "quickstart"], "edgesearch pretrain"),
        (["pretrain", "cifar10", "data.root=nowhere"], "nothing of that name"),
        (["devices", "show", "raspberry"], "a device of the catalog"),
        (["table", "nowhere.jsonl"], "to read the latency table nowhere.jsonl"),
        (["profile", "quickstart", "profile.accept=[drivr]"], "found: 'drivr'"),
    ],
)
def test_bad_input_is_one_message_and_2(tmp_path, arguments, message):
    if arguments[0] in ("search", "export", "pretrain", "evaluate"):
        arguments = [*arguments, f"output_dir={tmp_path / 'out'}"]
    done = edgesearch(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: required:") == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_all_faults_of_a_configuration_at_once():
    done = edgesearch("run", "quickstart", "pretrain.lr=fast", "serach.images=3", "space.name=tiny")
    assert done.returncode == 2
    for path in ("pretrain.lr", "serach", "space"):
        assert f"- {path}" in done.stderr


def test_an_output_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    done = edgesearch("profile", "quickstart", f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "an output folder that can be written to" in done.stderr


def test_devices():
    shown = json.loads(edgesearch("devices", "--json").stdout)
    assert "local-cpu" in [device["name"] for device in shown["devices"]]
    assert shown["machine"]["cores"] >= 1
    versions = {runtime["name"]: runtime["version"] for runtime in shown["runtimes"]}
    assert versions["onnxruntime"] == onnxruntime.__version__


def test_devices_for_people():
    shown = edgesearch("devices").stdout
    for name in known_devices():
        assert f"\n{name} " in f"\n{shown}"
    assert f"onnxruntime: {onnxruntime.__version__} (" in shown
    assert "CPUExecutionProvider" in shown


@pytest.mark.parametrize("gpu", [None, "NVIDIA H100"])
def test_devices_tells_of_a_gpu_or_that_there_is_none(monkeypatch, gpu):
    found = dict.fromkeys(("gpu", "compute_capability", "gpu_memory_bytes", "driver"))
    monkeypatch.setattr("edgesearch.stages.devices.read_gpu", lambda: {**found, "gpu": gpu})
    shown = CliRunner().invoke(app, ["devices"]).stdout
    assert f"\n  gpu: {gpu or 'no NVIDIA GPU detected'}\n" in shown
    assert shown.count("gpu: ") == 1
    assert json.loads(CliRunner().invoke(app, ["devices", "--json"]).stdout)["gpu"]["gpu"] == gpu


def test_devices_show_says_what_to_install():
    one = edgesearch("devices", "show", "raspberry-pi-5")
    assert one.returncode == 0
    assert one.stdout.startswith("raspberry-pi-5  Raspberry Pi 5 over ssh")
    assert "  transport: ssh\n" in one.stdout
    assert "pip install numpy onnxruntime" in one.stdout
    # The machine on which one reads this is another one.
    for line in ("detected here:", "runtimes:", "cores:", "mind:"):
        assert line not in one.stdout
    assert "machine" in json.loads(edgesearch("devices", "show", "raspberry-pi-5", "--json").stdout)


def test_devices_wants_a_name_to_show():
    assert edgesearch("devices", "show").returncode == 2
