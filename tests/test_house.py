"""What holds for the whole project: packaging and the public surface."""

import ast
import configparser
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgesearch

ROOT = Path(__file__).parents[1]
PACKAGES = ("devices", "edgesearch", "profilers")
MOST_PARAMETERS = 8
MOST_FUNCTIONS_WITH_MORE = 5


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_setup_lists_every_package(setup):
    listed = setup["options"]["packages"].split()
    on_disk = {
        ".".join(path.relative_to(ROOT).parent.parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(on_disk | {"configs"})


def test_setup_lists_every_data_file(setup):
    listed = {
        path
        for package, patterns in setup["options.package_data"].items()
        for pattern in patterns.split(",")
        for path in (ROOT / package.replace(".", "/")).glob(pattern.strip())
    }
    on_disk = {
        path
        for package in (*PACKAGES, "configs")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert len(on_disk) > 5
    assert listed == on_disk


def test_wheel_holds_what_users_need(tmp_path):
    for name in (*PACKAGES, "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    code = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    command = [sys.executable, "-c", code]
    build = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    (wheel,) = (tmp_path / "dist").glob("edgesearch-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        assert f"Version: {edgesearch.__version__}\n" in archive.read(metadata).decode()
    expected = {
        path.relative_to(tmp_path).as_posix()
        for name in (*PACKAGES, "configs")
        for path in (tmp_path / name).rglob("*")
        if path.is_file()
    }
    assert {"configs/quickstart.yaml", "devices/catalog/local-cpu.yaml"} <= held
    assert held == expected


def test_an_editable_install_wins_over_a_folder_of_the_same_name(tmp_path):
    """Such as the clone itself, seen from the folder that holds it."""
    clone = tmp_path / "edgesearch"
    ignored = shutil.ignore_patterns("__pycache__", "tests", ".git", "runs", "*.egg-info")
    shutil.copytree(ROOT, clone, ignore=ignored)
    code = "from setuptools.build_meta import build_editable; build_editable('dist')"
    build = subprocess.run(
        [sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, check=False
    )
    assert build.returncode == 0, build.stderr
    (wheel,) = (clone / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys, site; from pathlib import Path; "
        "sys.path = [p for p in sys.path if not Path(p, 'edgesearch', 'config').exists()]; "
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]; "
        f"site.addsitedir({str(tmp_path / 'site')!r}); import edgesearch; "
        "print(edgesearch.load_config.__code__.co_filename)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.stdout.startswith(str(clone / "edgesearch" / "config")), found.stderr


def test_every_package_folder_is_a_package():
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_tests_are_no_package():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_public_names():
    assert edgesearch.__all__ == sorted(edgesearch.__all__)
    assert dir(edgesearch) == edgesearch.__all__
    for name in edgesearch.__all__:
        assert getattr(edgesearch, name) is not None
    with pytest.raises(AttributeError, match="'edgesearch' has no attribute 'nothing'"):
        _ = edgesearch.nothing


def public_functions(source: str) -> Iterator[tuple[str, int]]:
    """Public functions and methods, without the constructors of data, and their parameters."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and (
            not node.name.startswith("_") or node.name == "__init__"
        ):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield node.name, len([each for each in given if each.arg not in ("self", "cls")])


def test_few_functions_have_many_parameters():
    """A thing is missing where so many values are handed on; commands of the console apart."""
    many = [
        f"{path.relative_to(ROOT)}: {name} has {count}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.parent.name != "cli"
        for name, count in public_functions(path.read_text("utf-8"))
        if count > MOST_PARAMETERS
    ]
    assert len(many) <= MOST_FUNCTIONS_WITH_MORE, "\n".join(many)


def test_steps_of_the_gpu_script_fit_into_twenty_minutes():
    spec = importlib.util.spec_from_file_location("gpu_script", ROOT / "benchmarks/gpu.py")
    script = sys.modules["gpu_script"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert sum(step.limit_s for step in script.STEPS.values()) <= 20 * 60
    assert list(script.chosen_steps("views,environment")) == ["environment", "views"]
    with pytest.raises(SystemExit, match="found: nothing"):
        list(script.chosen_steps("nothing"))
