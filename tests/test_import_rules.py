"""Who may import whom, and what stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("devices", "edgesearch", "profilers")

FLOORS = (
    {"errors", "settings", "events", "cache", "inputs", "pictures", "words"},
    {"space"},
    {"families"},
    {"data", "supernet", "processes"},
    {"evaluate", "formats", "teacher", "training"},
    {"tasks"},
    {"latency"},
    {"compare", "pretrain", "search"},
    {"export"},
    {"config"},
    {"run"},
    {"report"},
    {"stages"},
    {"api"},
    {"cli"},
    {"__main__"},
)
"""Rooms of edgesearch, from the lowest on: a room may import those on the floors below it, and on
the lowest floor also its neighbours."""
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}
LIGHT = {
    "devices.errors",
    "devices.files",
    "devices.locks",
    "devices.signals",
    "devices.spec",
    "devices.values",
}
"""What of `devices` every room may import."""
ON_DEVICES = {
    *("data", "supernet", "formats", "latency", "search", "export", "run", "report", "stages"),
}
ON_PROFILERS = {"latency", "search", "export", "report", "stages"}

BOARD_PACKAGES = {
    *sys.stdlib_module_names,
    *("numpy", "onnx", "onnxruntime", "cuda", "pycuda"),
    *("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"),
}
HEAVY = ("torch", "torchvision", "onnxruntime", "onnx", "tensorrt", "tensorrt_rtx_bindings", "nni")


def modules(tree: Path) -> dict[str, Path]:
    """All modules of the three packages by name; a package goes by its own name."""
    files = [path for package in PACKAGES for path in (tree / package).rglob("*.py")]
    parts = {path: path.relative_to(tree).with_suffix("").parts for path in files}
    return {
        ".".join(names[:-1] if names[-1] == "__init__" else names): path
        for path, names in parts.items()
    }


def imports(path: Path, name: str, known: dict[str, Path]) -> Iterator[str]:
    """Imported modules, wherever in the file."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            yield from (module if module in known else base for module in inner)


def room_of(module: str) -> str:
    """The room of a module of edgesearch; "" is the package itself."""
    return module.partition(".")[2].partition(".")[0]


def may_import(module: str, target: str) -> bool:
    """Whether there is an arrow from one module of the three packages to another."""
    package, room, other = module.split(".")[0], room_of(module), room_of(target)
    if package != "edgesearch" or not target.startswith("edgesearch"):
        if package == target.split(".")[0] or target in LIGHT and package == "edgesearch":
            return True
        if package != "edgesearch":
            return (package, target.split(".")[0]) == ("profilers", "devices")
        if target.endswith(".measure") and module.endswith(".settings"):
            return True  # defaults of how long to measure
        return room in (ON_DEVICES if target.split(".")[0] == "devices" else ON_PROFILERS)
    if room == other or target == "edgesearch":  # the version is for everyone
        return True
    if room == "":  # public names, imported when they are used
        return other not in ("cli", "__main__")
    if room not in FLOOR_OF or other not in FLOOR_OF:
        return False
    if room == "config" and FLOOR_OF[other] > 0:
        return target.endswith(".settings")
    return FLOOR_OF[other] < FLOOR_OF[room] or FLOOR_OF[other] == FLOOR_OF[room] == 0


def violations(tree: Path) -> list[str]:
    """Imports that the rules forbid, as `importer -> imported`."""
    known = modules(tree)
    faults = []
    for module, path in known.items():
        for target in imports(path, module, known):
            top = target.split(".")[0]
            if top in PACKAGES:
                allowed = may_import(module, target)
            elif module.split(".")[0] == "edgesearch":
                allowed = True
            else:
                allowed = top in BOARD_PACKAGES or (top == "yaml" and module == "devices.spec")
            if not allowed:
                faults.append(f"{module} -> {target}")
    return faults


def circle(tree: Path) -> list[str]:
    """Modules that import each other in a circle, be it for type checking only.

    The package edgesearch is left out: it shows type checkers the public names.
    """
    known = modules(tree)
    graph = {
        module: {target for target in imports(path, module, known) if target in known}
        for module, path in known.items()
        if module != "edgesearch"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def write_tree(tree: Path, files: dict[str, str]) -> Path:
    """A tree of packages with the given sources."""
    for name, source in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tree


def test_rules_hold():
    assert len(modules(ROOT)) > 20
    assert violations(ROOT) == []


def test_no_circles():
    assert circle(ROOT) == []


def test_every_room_has_a_floor():
    rooms = {room_of(module) for module in modules(ROOT) if module.startswith("edgesearch.")}
    assert rooms <= set(FLOOR_OF)


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("edgesearch/space/a.py", "import edgesearch.supernet", "edgesearch.supernet"),
        ("edgesearch/space/a.py", "from edgesearch import search", "edgesearch.search"),
        ("edgesearch/space/a.py", "from ..latency import x", "edgesearch.latency"),
        ("edgesearch/space/a.py", "def f():\n    import profilers", "profilers"),
        ("edgesearch/space/a.py", "from devices import files, spec", None),
        ("edgesearch/space/a.py", "from devices import fingerprint", "devices.fingerprint"),
        ("edgesearch/data/a.py", "import edgesearch.supernet", "edgesearch.supernet"),
        ("edgesearch/config/a.py", "import edgesearch.search.settings", None),
        ("edgesearch/config/a.py", "import edgesearch.search.b", "edgesearch.search.b"),
        ("edgesearch/search/a.py", "import edgesearch.config", "edgesearch.config"),
        ("edgesearch/search/a.py", "from edgesearch.errors import SearchError", None),
        ("edgesearch/search/a.py", "from edgesearch import __version__", None),
        ("edgesearch/search/a.py", "from edgesearch.search.b import c", None),
        ("edgesearch/stages/a.py", "import devices.runtimes, edgesearch.data, profilers", None),
        ("edgesearch/stages/a.py", "from edgesearch.cli import main", "edgesearch.cli"),
        ("edgesearch/nowhere/a.py", "import edgesearch.space", "edgesearch.space"),
        ("profilers/a.py", "import devices.spec, numpy, json", None),
        ("profilers/a.py", "import edgesearch.errors", "edgesearch.errors"),
        ("profilers/a.py", "import torch.nn", "torch.nn"),
        ("devices/a.py", "import profilers", "profilers"),
        ("devices/a.py", "import yaml", "yaml"),
        ("devices/spec.py", "import yaml", None),
    ],
)
def test_rules_can_fail(tmp_path, file, source, fault):
    tree = write_tree(tmp_path, {"edgesearch/search/__init__.py": "", "edgesearch/search/b.py": ""})
    others = ("spec", "files", "fingerprint")
    write_tree(tree, {**{f"devices/{name}.py": "" for name in others}, file: source})
    module = file.removesuffix(".py").replace("/", ".")
    assert violations(tree) == ([] if fault is None else [f"{module} -> {fault}"])


def test_circles_are_found(tmp_path):
    files = {"a": "from devices.b import B", "b": "def f():\n    from . import c", "c": ""}
    tree = write_tree(tmp_path, {f"devices/{name}.py": text for name, text in files.items()})
    assert circle(tree) == []
    (tree / "devices" / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import devices.a"
    )
    assert sorted(set(circle(tree))) == ["devices.a", "devices.b", "devices.c"]


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


SETTINGS = [module for module in modules(ROOT) if module.endswith(".settings")]


@pytest.mark.parametrize(
    "code",
    [
        f"import edgesearch.space, {', '.join(SETTINGS)}",
        "import edgesearch.config; edgesearch.config.load_config('quickstart')",
        "import runpy; sys.argv = ['edgesearch', '--help'];\n"
        "try: runpy.run_module('edgesearch', run_name='__main__')\n"
        "except SystemExit as error: assert not error.code",
    ],
    ids=["settings", "config", "help"],
)
def test_light_parts_import_nothing_heavy(code):
    report = f"import sys\n{code}\nprint([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    assert run_python(report).splitlines()[-1] == "[]"


def test_a_report_imports_nothing_that_takes_seconds_but_torch():
    code = "import sys, edgesearch.stages.report, edgesearch.data.digits"
    slow = ("torchvision", "torch._dynamo", "sklearn", "scipy.stats", "onnxruntime")
    report = f"{code}\nprint([m for m in {slow} if m in sys.modules], file=sys.stderr)"
    assert run_python(report).splitlines()[-1] == "[]"


@pytest.mark.parametrize("room", ["evaluate", "pretrain"])
def test_runs_without_the_libraries_that_gpu_images_lack(room):
    names = [name for name in modules(ROOT) if name.startswith(f"edgesearch.{room}.")]
    light = [name for name in names if not name.endswith(".settings")]
    assert len(light) > 3
    run_python(f"import sys; sys.modules.update(nni=None); import {', '.join(light)}")
