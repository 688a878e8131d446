"""Folders that change while they are read."""

import os

from PIL import Image

from edgesearch.data.find_files import find_files


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
