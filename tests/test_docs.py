"""The documentation site: it builds without warnings, and quotes real messages."""

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from edgesearch.formats.onnx_export import export_network
from edgesearch.formats.onnx_files import save_model
from edgesearch.tasks.boxes_in_graph import BoxesInGraph

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text("utf-8")
QUOTED = sorted(set(re.findall(r"\*\*`([^`]+)`\*\*", TROUBLESHOOTING)))


def texts_of_the_code():
    """Each constant text, with adjacent literals joined."""
    for package in ("edgesearch", "profilers", "devices"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


@pytest.fixture(scope="module")
def all_texts():
    return "\n".join(texts_of_the_code())


@pytest.mark.parametrize("message", QUOTED)
def test_troubleshooting_quotes_real_messages(message, all_texts):
    for part in message.split("…"):
        assert part.strip() in all_texts


def test_the_site_builds_without_warnings(tmp_path):
    commands = pytest.importorskip("mkdocs.commands.build")
    config = pytest.importorskip("mkdocs.config").load_config(
        str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)
    )
    commands.build(config)
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    built = {path.relative_to(tmp_path).with_suffix("") for path in tmp_path.rglob("*.html")}
    assert pages <= built
    assert {Path("reference/commands"), Path("reference/settings")} <= built


def cpp_headers():
    """The folder of onnxruntime's C++ headers; None without. ONNXRUNTIME_INCLUDE names another."""
    places = (os.environ.get("ONNXRUNTIME_INCLUDE"), "/usr/include/onnxruntime", "/usr/include")
    found = (Path(place) for place in places if place)
    return next((each for each in found if (each / "onnxruntime_cxx_api.h").exists()), None)


needs_cpp = pytest.mark.skipif(
    not (shutil.which("g++") and cpp_headers()),
    reason="g++ or onnxruntime's C++ headers are missing (ONNXRUNTIME_INCLUDE=FOLDER)",
)


def programs_in_cpp():
    """The whole program, and that for a detector."""
    page = (DOCS / "how-to" / "deploy.md").read_text("utf-8")
    program, of_a_detector = re.findall(r"```cpp\n(.*?)```", page, re.S)
    return program, program[: program.index("  auto out =")] + of_a_detector


def said_in_cpp(source, tmp_path):
    """What a program prints; linked with the Python package's library, which older headers fit."""
    (tmp_path / "main.cpp").write_text(source)
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)
    build = ["g++", "-std=c++17", "-Wall", "-Werror", "-isystem", str(cpp_headers()), "main.cpp"]
    subprocess.run([*build, "./libonnxruntime.so.1", "-o", "main"], cwd=tmp_path, check=True)
    return subprocess.run(
        [tmp_path / "main"],
        cwd=tmp_path,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@needs_cpp
def test_the_program_in_cpp_gives_what_python_gives(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 7, 8), torch.nn.Flatten()).eval()
    example = torch.zeros(1, 3, 8, 8)
    torch.onnx.export(network, (example,), tmp_path / "subnet.onnx", dynamo=False)
    values = network(example).flatten().detach()
    said = said_in_cpp(programs_in_cpp()[0], tmp_path)
    found = re.fullmatch(r"7 values, the largest is number (\d): (\S+)\n", said)
    assert int(found[1]) == int(values.argmax())
    assert float(found[2]) == pytest.approx(float(values.max()), rel=1e-4)


@needs_cpp
def test_the_detector_in_cpp_finds_what_python_finds(tmp_path):
    class Constant(torch.nn.Module):
        def forward(self, images):
            zero = images.mean()
            scores = torch.tensor([[[0.9, 0.1], [0.8, 0.1], [0.2, 0.6]]])
            sides = [[0.125, 0.25, 0.5, 0.5], [0.125, 0.25, 0.5, 0.5], [0.5, 0.5, 1.0, 0.75]]
            return scores + zero, torch.tensor([sides]) + zero

    path = tmp_path / "subnet.onnx"
    names = ["scores", "boxes"]
    export_network(Constant(), path, input_shape=(1, 3, 8, 8), output_names=names)
    save_model(BoxesInGraph().joined(onnx.load(path)), path)
    said = said_in_cpp(programs_in_cpp()[1], tmp_path)
    assert said == "0 0.9 0.125 0.25 0.5 0.5\n1 0.6 0.5 0.5 1 0.75\n"
