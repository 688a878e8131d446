"""The file of a teacher's embeddings: resumed, replaced, and a full disk."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from devices.errors import FileError
from edgesearch.teacher.teacher_cache import TeacherCache

ABOUT = {"images": "a", "crop_scale": (0.2, 1.0)}


class Stop(Exception):
    pass


def row(index, dim=4):
    generator = torch.Generator().manual_seed(index)
    return torch.randn(dim, generator=generator)


def embed(rows):
    return torch.stack([row(index) for index in rows])


@pytest.fixture
def cache(tmp_path):
    return TeacherCache(tmp_path, ABOUT, rows=10, dim=4)


def test_rows_come_back_also_in_a_worker(cache):
    cache.fill(embed, at_once=3)
    expected = torch.stack([row(index) for index in (7, 2)])
    torch.testing.assert_close(cache[np.array([7, 2])], expected, atol=2e-3, rtol=1e-3)
    in_worker = pickle.loads(pickle.dumps(cache))
    assert len(pickle.dumps(cache)) < 2000
    torch.testing.assert_close(in_worker[7], row(7), atol=2e-3, rtol=1e-3)


def test_stopped_work_continues(cache, tmp_path):
    def stop(done):
        if done == 6:
            raise Stop

    assert (cache.already(), cache.bytes_left) == ("", 80)
    with pytest.raises(Stop):
        cache.fill(embed, 3, stop)
    with (tmp_path / "teacher.f16").open("ab") as file:
        file.write(b"\x01\x02\x03")  # a torn row
    again, asked = TeacherCache(tmp_path, ABOUT, rows=10, dim=4), []
    assert (again.done, again.bytes_left) == (6, 32)
    assert again.already(2) == "the teacher's embeddings of 3 of 5 images are kept from before"

    def counted(rows):
        asked.extend(rows)
        return embed(rows)

    again.fill(counted, 3)
    assert asked == [6, 7, 8, 9]
    whole = again[np.arange(10)]
    torch.testing.assert_close(whole, embed(range(10)), atol=2e-3, rtol=1e-3)


def test_rows_of_maps(tmp_path):
    """They are resumed as embeddings are, and never taken for these, nor for another grid."""
    of_maps = lambda grid=(2, 3): TeacherCache(tmp_path, ABOUT, 10, 4, grid)  # noqa: E731
    maps = lambda rows: torch.stack([row(i, 24).view(4, 2, 3) for i in rows])  # noqa: E731

    def stop(done):
        raise Stop

    assert of_maps().bytes_left == 10 * 24 * 2
    with pytest.raises(Stop):
        of_maps().fill(maps, 3, stop)
    assert (of_maps().done, of_maps().already()[:18]) == (3, "the teacher's maps")
    of_maps().fill(maps, 3)
    found = of_maps()[np.array([7, 2])]
    torch.testing.assert_close(found, maps([7, 2]), atol=2e-3, rtol=1e-3)
    assert of_maps()[7].shape == (4, 2, 3)
    # The same number of values a row, in other forms.
    for other in (TeacherCache(tmp_path, ABOUT, 10, 24), of_maps((3, 2)), of_maps((1, 6))):
        assert (other.is_foreign, other.done) == (True, 0)


@pytest.mark.parametrize("change", [{"about": {"images": "b"}}, {"rows": 9}, {"dim": 2}])
def test_rows_of_other_images_are_replaced(cache, tmp_path, change):
    cache.fill(embed, 10)
    values = {"about": ABOUT, "rows": 10, "dim": 4, **change}
    other = TeacherCache(tmp_path, **values)
    assert (other.is_foreign, other.done) == (True, 0)
    assert other.already().endswith(f"in {tmp_path / 'teacher.f16'} are replaced")
    other.fill(lambda rows: torch.stack([row(index, values["dim"]) for index in rows]), 10)
    assert (other.is_foreign, other.done) == (False, values["rows"])
    torch.testing.assert_close(other[8], row(8, values["dim"]), atol=2e-3, rtol=1e-3)


def test_description_that_cannot_be_read_counts_as_foreign(cache, tmp_path):
    cache.fill(embed, 10)
    (tmp_path / "teacher.json").write_text("{")
    assert cache.is_foreign


def test_full_disk_keeps_what_is_finished(tmp_path):
    """A limit on the size of files stands for a full disk."""
    script = f"""
import resource, signal, torch
from pathlib import Path
from edgesearch.teacher.teacher_cache import TeacherCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
cache = TeacherCache(Path({str(tmp_path)!r}), {{"images": "a"}}, rows=1000, dim=64)
try:
    cache.fill(lambda rows: torch.ones(len(rows), 64), 10)
except Exception as error:
    print(type(error).__name__, error)
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=True
    )
    assert "FileError room for the teacher's 1,000 embeddings" in found.stdout
    assert "finished embeddings are kept" in found.stdout
    again = TeacherCache(tmp_path, {"images": "a"}, rows=1000, dim=64)
    assert 0 < again.done < 1000
    again.fill(lambda rows: torch.ones(len(rows), 64), 100)
    assert again.done == 1000


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = TeacherCache(tmp_path / "file", ABOUT, rows=10, dim=4)
    with pytest.raises(FileError, match="teacher"):
        cache.fill(embed, 5)
