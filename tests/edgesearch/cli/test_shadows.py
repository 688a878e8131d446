"""Files of the user's in the current folder, with the names of modules that edgesearch needs."""

import subprocess
import sys

import pytest


@pytest.fixture
def folder(tmp_path):
    for name in ("devices", "profilers", "configs", "yaml", "torch", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')")
    return tmp_path


def run(folder, *command):
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
    )


def test_they_do_not_matter_to_the_command_line(folder):
    done = run(folder, "-m", "edgesearch", "devices", "show", "local-cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("local-cpu")


@pytest.mark.parametrize("name", ["devices", "profilers"])
def test_in_python_the_one_in_the_way_is_named(tmp_path, name):
    (tmp_path / f"{name}.py").touch()
    done = run(tmp_path, "-c", "import edgesearch")
    assert f"its own package '{name}', but Python finds {tmp_path}/{name}.py" in done.stderr
    (tmp_path / f"{name}.py").unlink()
    (tmp_path / name).mkdir()  # a folder that is no package stands in nobody's way
    assert run(tmp_path, "-c", "import edgesearch; edgesearch.load_config").returncode == 0
