"""Folders that change while they are read."""

import os

import pytest
from PIL import Image

from edgesearch.data.find_files import find_files
from edgesearch.data.open_images import open_images
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError, UserNotice


def test_a_link_that_vanishes_while_it_is_read_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "kept" / "a.png")
    (tmp_path / "gone").symlink_to("kept")
    real = os.path.realpath

    def vanishing(path, **options):
        if os.path.basename(path) == "gone":  # as /proc/NUMBER/cwd of a process that has ended
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path, **options)

    monkeypatch.setattr(os.path, "realpath", vanishing)
    found = find_files(tmp_path, lambda name, open_file: None, lambda folder: False)
    assert [file.parts for file in found.files] == [("kept", "a.png")]
    assert found.left_out == [("linked to nothing", ("gone", ""))]


def test_a_long_search_gives_a_sign_of_life(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "1.png")
    monkeypatch.setattr("edgesearch.data.find_files.TELL_EVERY_S", 0.0)
    with pytest.warns(UserNotice) as told:
        find_files(tmp_path, lambda name, open_file: None, lambda folder: False)
    assert str(told[-1].message) == (
        f"still searching {tmp_path}: 1 files to read in 2 folders so far; Ctrl-C stops"
    )


@pytest.mark.parametrize("source", ["folder", "shards"])
def test_the_root_of_all_files_is_refused_at_once(source):
    settings = DataSettings(source=source, root="/")
    with pytest.raises(DataError, match="not of all files of this machine"):
        open_images(settings, 3)
