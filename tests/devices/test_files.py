"""Files that survive kills and full disks."""

import errno
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.errors import FileError, UserNotice
from devices.files import JsonLines, replacing, sha256_of, write_bytes, write_json

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, nothing reaches the disk any more."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "fsync", refuse)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may get larger than 1,000 bytes."""
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


class TestReplacing:
    def test_the_file_is_there_with_its_folder_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "a.json"
        write_json(path, {"a": [1, 2.5, None]})
        assert json.loads(path.read_text("utf-8")) == {"a": [1, 2.5, None]}
        assert names(path.parent) == ["a.json"]

    def test_a_file_that_did_not_reach_the_disk_leaves_the_former_one(
        self, tmp_path: Path, no_room: Callable[[], None]
    ) -> None:
        path = tmp_path / "a.json"
        write_json(path, 1)
        no_room()
        message = f"room to write {path}; found: No space left on device. Free space or choose"
        with pytest.raises(FileError, match=message):
            write_bytes(path, b"2", path.with_name("former"))
        assert (path.read_bytes(), names(tmp_path)) == (b"1\n", ["a.json"])

    def test_a_former_file_is_kept_under_its_name(self, tmp_path: Path) -> None:
        path, former = tmp_path / "a", tmp_path / "former"
        write_bytes(path, b"1", former)
        assert not former.exists()
        write_bytes(path, b"2", former)
        assert (path.read_bytes(), former.read_bytes()) == (b"2", b"1")

    @pytest.mark.parametrize(("place", "why"), [("file/a", "File exists"), ("", "Is a directory")])
    def test_no_place_for_a_file(self, tmp_path: Path, place: str, why: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(FileError, match=f"^to write .*; found: {why}. A .* is in the way"):
            write_bytes(tmp_path / place, b"")

    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.EDQUOT, "room to write .*; found: Disk quota exceeded. Free space or"),
            (errno.EROFS, "^to write .*; found: Read-only file system. It is mounted read-only"),
            (errno.EACCES, "^to write .*; found: Permission denied. Get the permission"),
            (errno.EIO, "^to write .*; found: Input/output error. Check the disk"),
        ],
    )
    def test_the_remedy_fits_the_reason(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(FileError, match=message):
            write_bytes(tmp_path / "a", b"1")
        assert names(tmp_path) == []

    def test_a_long_name_is_told_as_such(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="found: File name too long. Choose an output_dir"):
            write_bytes(tmp_path / ("x" * 300), b"1")

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
    def test_a_file_system_that_cannot_sync_is_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def refuse(_: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", refuse)
        write_bytes(tmp_path / "a", b"1")
        JsonLines(tmp_path / "b", "", "").append({"n": 1})
        assert names(tmp_path) == ["a", "b"]

    def test_a_failure_in_the_block_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(IndexError), replacing(tmp_path / "a") as partial:
            (partial.touch(), [][0])
        assert names(tmp_path) == []

    def test_shared_files_have_a_temporary_name_for_each_process(self, tmp_path: Path) -> None:
        with replacing(tmp_path / "a", shared=True) as partial:
            partial.touch()
            assert str(os.getpid()) in partial.name
        assert names(tmp_path) == ["a"]


@pytest.fixture
def lines(tmp_path: Path) -> JsonLines:
    lines = JsonLines(tmp_path / "deep" / "a.jsonl", "colours", "Remove this line.")
    for number in (1, 2, 3):
        lines.append({"n": number})
    return lines


WHOLE = [(1, {"n": 1}), (2, {"n": 2}), (3, {"n": 3})]


def test_a_file_has_the_mode_of_other_new_files(tmp_path: Path) -> None:
    path, plain = tmp_path / "a", tmp_path / "plain"
    for umask in (0o022, 0o077, 0o002):
        former = os.umask(umask)
        try:
            plain.unlink(missing_ok=True)
            plain.touch()
            with replacing(path) as partial:
                partial.touch(mode=0o600)  # as safetensors writes its files
        finally:
            os.umask(former)
        assert path.stat().st_mode == plain.stat().st_mode


def test_the_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a").startswith("ba7816bf8f01cfea")


class TestJsonLines:
    def test_round_trip(self, lines: JsonLines) -> None:
        assert lines.read() == WHOLE

    @pytest.mark.parametrize("torn", [b"{", b'{"n": 4}', b"\xff\xfe", b"{\0\0\0}\n", b"[4]\n"])
    def test_a_torn_last_line_does_not_count(self, lines: JsonLines, torn: bytes) -> None:
        before = lines.path.read_bytes()
        lines.path.write_bytes(before + torn)
        with pytest.warns(UserNotice, match="a.jsonl: its last line is torn"):
            assert lines.read() == WHOLE
        assert lines.path.read_bytes() == before + torn
        with pytest.warns(UserNotice):
            assert lines.read(cut=True) == WHOLE
        lines.append({"n": 4})
        assert lines.read() == [*WHOLE, (4, {"n": 4})]

    def test_any_cut_leaves_what_was_whole(self, lines: JsonLines) -> None:
        data = lines.path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for length in range(len(data)):
                lines.path.write_bytes(data[:length])
                assert lines.read() == WHOLE[: data[:length].count(b"\n")]

    @pytest.mark.parametrize("line", [b"nonsense", b"[1]", b"\xff", b""])
    def test_a_damaged_line_is_named(self, lines: JsonLines, line: bytes) -> None:
        lines.path.write_bytes(b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
        with pytest.raises(FileError, match=r"colours.*a\.jsonl; found: line 2: .*Remove this"):
            lines.read()

    def test_what_is_no_value_is_named_with_its_line(self, lines: JsonLines) -> None:
        message = r"colours.*a\.jsonl; found: line 7: no 'b'"
        with pytest.raises(FileError, match=message), lines.line(7):
            _ = {"a": 1}["b"]

    def test_another_file_is_found_out_by_its_begin(self, lines: JsonLines) -> None:
        with lines.path.open("wb") as file:
            file.write(b"GIF89a")
            file.truncate(1 << 40)
        with pytest.raises(FileError, match="found: a file that begins with 'GIF89a"):
            lines.read()

    @pytest.mark.parametrize("path", ["/dev/full", "/dev/null"])
    def test_a_device_is_refused(self, path: str) -> None:
        if not Path(path).exists():
            pytest.skip(f"no {path} here")
        with pytest.raises(FileError, match=f"a regular file at {path}"):
            JsonLines(Path(path), "", "").read()

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="to read .*none; found: No such file"):
            JsonLines(tmp_path / "none", "", "").read()

    def test_a_full_disk_loses_nothing_that_was_kept(
        self, tmp_path: Path, small_disk: None
    ) -> None:
        lines = JsonLines(tmp_path / "a.jsonl", "", "")
        message = "room to append to .*; found: File too large. Free space or choose another out"
        for number in range(100):
            lines.append({"n": number % 10})
        with pytest.raises(FileError, match=message):
            lines.append({"long": "x" * 500})
        assert len(lines.read()) == 100

    def test_a_line_that_did_not_reach_the_disk_is_taken_back(
        self, lines: JsonLines, no_room: Callable[[], None]
    ) -> None:
        no_room()
        with pytest.raises(FileError, match="room to append to .*; found: No space left"):
            lines.append({"n": 4})
        assert lines.read() == WHOLE


WRITE = """
import sys
from pathlib import Path
from devices.files import JsonLines, write_json
lines = JsonLines(Path(sys.argv[1]) / "a.jsonl", "", "")
for number in range(100_000):
    lines.append({"n": number, "long": "x" * 5000}, sync=False)
    write_json(lines.path.with_name("a.json"), {"n": number})
"""


def test_a_kill_leaves_whole_files(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path)], cwd=ROOT)
    while process.poll() is None and not (tmp_path / "a.json").exists():
        time.sleep(0.001)
    time.sleep(0.05)
    process.kill()
    process.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = JsonLines(tmp_path / "a.jsonl", "", "").read()
    assert [values["n"] for _, values in lines] == list(range(len(lines)))
    written = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert len(lines) - 2 <= written["n"] < len(lines)
