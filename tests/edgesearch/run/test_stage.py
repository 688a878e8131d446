"""Whether a stage is done, and what becomes of what was there."""

import json

import pytest

from edgesearch.config import Config
from edgesearch.run.context import RunContext
from edgesearch.run.stage import RECORD, Stage

SETTINGS = {"search.evaluations": 10, "search.widths": (1, 2)}
INPUTS = {"the weights": "aa"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "search"


@pytest.fixture
def stage(folder):
    return Stage("search", folder, SETTINGS, INPUTS)


@pytest.fixture
def finished(stage):
    stage.begin()
    (stage.folder / "result.json").write_text("{}", encoding="utf-8")
    stage.finish(["result.json"])
    return stage


def test_a_first_run_tells_nothing(stage, folder):
    folder.mkdir()  # an empty folder is taken
    assert stage.begin() == (False, "")
    record = json.loads((stage.folder / RECORD).read_text("utf-8"))
    assert (record["finished"], record["stage"]) == (False, "search")


def test_a_stopped_run_goes_on(stage):
    stage.begin()
    (stage.folder / "half").touch()
    assert stage.begin() == (False, "resuming where it was stopped")
    assert (stage.folder / "half").exists()


def test_a_finished_run_is_done(finished, folder):
    assert finished.is_finished()
    assert finished.begin() == (True, "already finished, and nothing it depends on has changed")
    finished.reopen()
    assert finished.begin() == (False, "resuming where it was stopped")
    assert (folder / "result.json").exists()


def test_whether_it_is_finished_can_be_asked_without_touching_anything(finished, folder):
    assert not Stage("search", folder, SETTINGS, {"the weights": "bb"}).is_finished()
    assert not Stage("search", folder / "none", SETTINGS, INPUTS).is_finished()
    assert sorted(path.name for path in folder.iterdir()) == ["result.json", RECORD]
    (folder / "result.json").unlink()
    assert not finished.is_finished()


SPACE = {"name": "tiny", "widths": [8, 16], "deep": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"images": 10}, {"images": 20}, "images has changed from 10 to 20"),
        ({"widths": (1, 2)}, {}, "widths has changed from [1, 2] to null"),
        ({}, {"widths": (1, 2)}, "widths has changed from null to [1, 2]"),
        ({"space": SPACE}, {"space": {**SPACE, "widths": [8]}}, "space.widths has changed from ["),
        (
            {"space": SPACE},
            {"space": {**SPACE, "deep": {"a": 1}}},
            "space.deep.b has changed from 2 to null",
        ),
        (
            {"space": SPACE},
            {"space": {**SPACE, "new": 1}},
            "space.new has changed from null to 1",
        ),
    ],
)
def test_the_key_that_has_changed_is_named_with_both_values(folder, before, after, message):
    Stage("search", folder, before, INPUTS).begin()  # stopped ones are set aside, too
    assert Stage("search", folder, after, INPUTS).begin()[1].startswith(message)


def test_what_was_made_with_something_else_is_kept(finished, folder):
    others = [
        Stage("search", folder, {**SETTINGS, "search.evaluations": 20}, INPUTS),
        Stage("search", folder, SETTINGS, {"the weights": "bb"}),
        finished,
    ]
    kept = [folder.with_name(f"search.{number}") for number in (1, 2, 3)]
    told = [other.begin() for other in others]
    assert told[0] == (
        False,
        "search.evaluations has changed from 10 to 20: starting over; the former output is kept as "
        f"{kept[0]}",
    )
    assert told[1][1].startswith("search.evaluations has changed from 20 to 10")
    assert told[2][1].startswith("the weights has changed: starting over")
    assert (kept[0] / "result.json").exists()
    assert all(path.exists() for path in kept)
    assert [path.name for path in folder.iterdir()] == [RECORD]


def test_a_missing_output_is_done_again(finished):
    (finished.folder / "result.json").unlink()
    (finished.folder / "log").touch()
    assert finished.begin() == (False, "result.json is missing: starting again")
    assert (finished.folder / "log").exists()
    assert finished.begin() == (False, "resuming where it was stopped")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "7", "[{}]", '{"settings": {}}', "\udcff"])
def test_without_a_whole_record_what_is_there_is_kept_aside(finished, folder, text):
    (folder / RECORD).unlink()
    if text is not None:
        (folder / RECORD).write_text(text, "utf-8", errors="surrogateescape")
    kept = folder.with_name("search.1")
    assert finished.begin() == (False, f"no record of how {folder} was made; kept as {kept}")
    assert (kept / "result.json").exists()


class TestDoing:
    @pytest.fixture
    def told(self):
        return []

    @pytest.fixture
    def do(self, stage, small_config, tmp_path, told):
        """Do the stage; what was called is in the list that is returned."""
        config = Config.model_validate({**small_config, "output_dir": str(tmp_path)})
        run = RunContext(config, lambda event: told.append(event.message))

        def do(fails_in=None):
            called = []

            def prepare():
                called.append("prepare")
                if fails_in == "prepare":
                    raise ZeroDivisionError
                return 7

            def work(prepared):
                called.append(f"work {prepared}")
                if fails_in == "work":
                    raise ZeroDivisionError
                (stage.folder / "result.json").touch()
                return ["result.json"]

            called.append(stage.do(run, prepare, work))
            return called

        return do

    def test_once(self, do, told, stage):
        assert do() == ["prepare", "work 7", False]
        assert told == []
        assert do() == [True]
        assert told == ["already finished, and nothing it depends on has changed"]
        assert stage.is_finished()

    def test_what_is_refused_touches_nothing(self, do, folder):
        with pytest.raises(ZeroDivisionError):
            do("prepare")
        assert not folder.exists()

    def test_what_is_stopped_goes_on(self, do, told):
        with pytest.raises(ZeroDivisionError):
            do("work")
        assert do() == ["prepare", "work 7", False]
        assert told == ["resuming where it was stopped"]
