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

# Rooms of edgesearch, without the package's name; all may import `errors`.
ALLOWED = {
    "errors": {"devices.errors"},
    "space": set(),
    "data": set(),
    "config": {"space", "devices.spec"},
    "families": {"space"},
    "supernet": {"space", "families"},
    "latency": {"space", "profilers"},
    "evaluate": {"space", "supernet"},
    "pretrain": {"space", "supernet", "evaluate", "data"},
    "search": {"space", "supernet", "evaluate", "latency"},
    "export": {"space", "supernet", "evaluate", "devices"},
    "cli": {"workflow", "config"},
    "__main__": {"cli"},
}
ALLOWED["workflow"] = {"profilers", "devices"} | set(ALLOWED) - {"cli", "config", "__main__"}
# The package itself imports nothing at run time, but shows type checkers what it offers.
ALLOWED[""] = set(ALLOWED) - {"cli", "__main__"}

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


def imports(path: Path, name: str, known: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """Imported modules, wherever in the file, and whether only type checkers see the import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = [f"{base}.{alias.name}" for alias in node.names]
            targets = [module if module in known else base for module in inner]
        else:
            continue
        yield from ((target, id(node) in for_types) for target in targets)


def room_of(module: str) -> str:
    """`devices`, `profilers`, or the room of edgesearch; "" is the package edgesearch itself."""
    first, *rest = module.split(".")
    return first if first != "edgesearch" else rest[0] if rest else ""


def may_import(module: str, target: str) -> bool:
    """Whether the table has an arrow from one module of the three packages to another."""
    package, room = module.split(".")[0], room_of(module)
    if package == target.split(".")[0] and room == room_of(target):
        return True
    if package != "edgesearch":
        return package == "profilers" and room_of(target) == "devices"
    if room not in ALLOWED:
        return False
    # The version, which the package itself holds, is for everyone.
    names = {target, room_of(target)} if target != "edgesearch" else {"version"}
    return bool(names & (ALLOWED[room] | {"errors", "version"}))


def violations(tree: Path) -> list[str]:
    """Imports that the rules forbid, as `importer -> imported`."""
    known = modules(tree)
    faults = []
    for module, path in known.items():
        for target, _ in imports(path, module, known):
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
    """Modules that import each other in a circle, if there are any."""
    known = modules(tree)
    graph = {
        module: {
            target
            for target, for_types in imports(path, module, known)
            if target in known and not for_types
        }
        for module, path in known.items()
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


def test_table_itself_has_no_circle():
    arrows = {room: targets & set(ALLOWED) for room, targets in ALLOWED.items()}
    TopologicalSorter(arrows).prepare()


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("edgesearch/space/a.py", "import edgesearch.supernet", "edgesearch.supernet"),
        ("edgesearch/space/a.py", "from edgesearch import search", "edgesearch.search"),
        ("edgesearch/space/a.py", "from ..latency import x", "edgesearch.latency"),
        ("edgesearch/space/a.py", "def f():\n    import profilers", "profilers"),
        ("edgesearch/config/a.py", "from devices import fingerprint", "devices.fingerprint"),
        ("edgesearch/config/a.py", "from devices import spec", None),
        ("edgesearch/search/a.py", "import edgesearch.config", "edgesearch.config"),
        ("edgesearch/search/a.py", "from edgesearch.errors import SearchError", None),
        ("edgesearch/search/a.py", "from edgesearch import __version__", None),
        ("edgesearch/search/a.py", "from edgesearch.search.b import c", None),
        ("edgesearch/workflow/a.py", "import devices.runtimes, edgesearch.data", None),
        ("edgesearch/workflow/a.py", "from edgesearch.cli import main", "edgesearch.cli"),
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
    tree = write_tree(tmp_path, {"edgesearch/search/__init__.py": ""})
    write_tree(tree, {"devices/spec.py": "", "devices/fingerprint.py": "", file: source})
    module = file.removesuffix(".py").replace("/", ".")
    assert violations(tree) == ([] if fault is None else [f"{module} -> {fault}"])


def test_circles_are_found(tmp_path):
    files = {"a": "from devices.b import B", "b": "def f():\n    from . import c", "c": ""}
    tree = write_tree(tmp_path, {f"devices/{name}.py": text for name, text in files.items()})
    assert circle(tree) == []
    (tree / "devices" / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import devices.a"
    )
    assert circle(tree) == []
    (tree / "devices" / "c.py").write_text("import devices.a")
    assert sorted(set(circle(tree))) == ["devices.a", "devices.b", "devices.c"]


@pytest.mark.parametrize(
    "code",
    [
        "import edgesearch.families; edgesearch.families.load_space('resnet_tiny')",
        "import edgesearch.config; edgesearch.config.load_config('quickstart')",
        "import runpy; sys.argv = ['edgesearch', '--help'];\n"
        "try: runpy.run_module('edgesearch', run_name='__main__')\n"
        "except SystemExit as error: assert not error.code",
    ],
    ids=["space", "config", "help"],
)
def test_light_parts_import_nothing_heavy(code):
    report = f"import sys\n{code}\nprint([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("room", ["evaluate", "pretrain"])
def test_runs_without_the_libraries_that_gpu_images_lack(room):
    absent = "import sys; sys.modules.update(pydantic=None, nni=None)"
    code = f"{absent}; import edgesearch.{room} as room; [getattr(room, n) for n in room.__all__]"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
