"""What holds for the whole project: packaging, the public surface, sizes of files."""

import ast
import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import edgesearch

ROOT = Path(__file__).parents[1]
PACKAGES = ("devices", "edgesearch", "profilers")
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 50


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def long_functions(source: str) -> list[str]:
    """Functions whose body, without the docstring, is too long."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            if body and node.end_lineno - body[0].lineno + 1 > MOST_LINES_OF_A_FUNCTION:
                found.append(node.name)
    return found


def sources() -> list[Path]:
    folders = (*PACKAGES, "tests", "benchmarks")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


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


def test_files_are_short():
    files = sources()
    assert len(files) > 20
    long = [path for path in files if len(path.read_text("utf-8").splitlines()) > MOST_LINES]
    assert long == []


def test_functions_are_short():
    long = {path: long_functions(path.read_text("utf-8")) for path in sources()}
    assert {path: names for path, names in long.items() if names} == {}


def test_long_functions_are_found():
    body = "    x = 1\n" * (MOST_LINES_OF_A_FUNCTION - 1)
    fits = f'def f():\n    """Two\n    lines."""\n{body}    return x\n'
    assert long_functions(fits) == []
    assert long_functions(fits.replace("return x", "y = 2\n    return x")) == ["f"]
