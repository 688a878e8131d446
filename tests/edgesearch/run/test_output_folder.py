"""The output folder, and files that stages read from each other."""

import pytest

from devices.errors import FileError
from edgesearch.errors import StageError
from edgesearch.run.output_folder import digest_of, output_folder, read_json


def test_it_is_made_for_one_writer(tmp_path):
    with output_folder(tmp_path / "a" / "b") as folder:
        assert folder.is_dir()
        message = f"the only process that writes to {folder}; found: another one"
        with pytest.raises(FileError, match=message), output_folder(folder):
            pass


@pytest.mark.parametrize("read", [read_json, digest_of])
def test_a_missing_file_names_the_command_that_writes_it(tmp_path, read):
    message = "a.json, which `edgesearch search` writes; found: no such file. Run `edgesearch sea"
    with pytest.raises(StageError, match=message):
        read(tmp_path / "a.json", "search")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(StageError, match="a.json, which .* writes; found: Expecting property"):
        read_json(tmp_path / "a.json", "search")
