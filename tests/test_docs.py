"""The documentation site: it builds without warnings, and quotes real messages."""

import ast
import re
from pathlib import Path

import pytest

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
