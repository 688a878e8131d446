"""Whether a stage is done, and what becomes of what was there."""

import json

import pytest

from edgesearch.run.stage import RECORD, Stage, prefixed

CONFIG = {"search.evaluations": 10, "search.widths": (1, 2)}
INPUTS = {"the weights": "aa"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "search"


@pytest.fixture
def stage(folder):
    return Stage("search", folder, CONFIG, INPUTS)


@pytest.fixture
def finished(stage):
    stage.begin()
    (stage.folder / "result.json").write_text("{}", encoding="utf-8")
    stage.finish(["result.json"])
    return stage


def test_first_run_tells_nothing(stage):
    assert stage.begin() == (False, "")
    record = json.loads((stage.folder / RECORD).read_text("utf-8"))
    assert record["finished"] is False
    assert record["stage"] == "search"


def test_stopped_run_goes_on(stage):
    stage.begin()
    (stage.folder / "half").touch()
    assert stage.begin() == (False, "going on where it was stopped")
    assert (stage.folder / "half").exists()


def test_finished_run_is_done(finished):
    done, message = finished.begin()
    assert done
    assert message == "finished before, and nothing it depends on has changed"


def test_whether_it_is_finished_can_be_asked_without_touching_anything(finished, folder):
    changed = Stage("search", folder, CONFIG, {"the weights": "bb"})
    assert finished.is_finished()
    assert not changed.is_finished()
    assert not Stage("search", folder / "none", CONFIG, INPUTS).is_finished()
    assert sorted(path.name for path in folder.iterdir()) == ["result.json", RECORD]
    (folder / "result.json").unlink()
    assert not finished.is_finished()


def test_a_changed_key_is_named_with_both_values(finished, folder):
    changed = Stage("search", folder, {**CONFIG, "search.evaluations": 20}, INPUTS)
    done, message = changed.begin()
    assert not done
    kept = folder.with_name("search.1")
    assert message == (
        f"search.evaluations has changed from 10 to 20: done anew; what was there is kept as {kept}"
    )
    assert (kept / "result.json").exists()
    assert [path.name for path in folder.iterdir()] == [RECORD]


def test_of_a_section_the_changed_key_is_named(folder):
    space = {"name": "tiny", "stem_widths": [8, 16], "deep": {"a": 1, "b": 2}}
    others = [
        ({**space, "stem_widths": [8]}, "space.stem_widths has changed from [8, 16] to [8]"),
        ({**space, "deep": {"a": 1}}, "space.deep.b has changed from 2 to None"),
        ({**space, "new": 1}, "space.new has changed from None to 1"),
    ]
    for other, message in others:
        Stage("search", folder, {"space": space}, INPUTS).begin()
        assert Stage("search", folder, {"space": other}, INPUTS).begin()[1].startswith(message)


def test_a_key_that_came_or_went_is_named(finished, folder):
    less = Stage("search", folder, {"search.evaluations": 10}, INPUTS)
    assert "search.widths has changed from [1, 2] to None" in less.begin()[1]
    assert "search.widths has changed from None to [1, 2]" in finished.begin()[1]


def test_a_key_that_is_recorded_no_more_is_no_change(finished, folder):
    now = Stage("search", folder, {"search.evaluations": 10}, INPUTS, no_more=["search.widths"])
    assert now.is_finished()
    assert now.begin() == finished.begin()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_reopened_stage_goes_on(finished, folder):
    finished.reopen()
    assert finished.begin() == (False, "going on where it was stopped")
    assert (folder / "result.json").exists()


def test_a_changed_input_is_named(finished, folder):
    done, message = Stage("search", folder, CONFIG, {"the weights": "bb"}).begin()
    assert not done
    assert message.startswith("the weights has changed: done anew")


def test_every_folder_that_is_set_aside_is_kept(finished, folder):
    for evaluations in (20, 30, 40):
        Stage("search", folder, {**CONFIG, "search.evaluations": evaluations}, INPUTS).begin()
    assert [folder.with_name(f"search.{n}").exists() for n in (1, 2, 3, 4)] == [True] * 3 + [False]


def test_a_stopped_run_of_another_configuration_is_set_aside(stage, folder):
    stage.begin()
    (folder / "half").touch()
    done, message = Stage("search", folder, {**CONFIG, "search.evaluations": 20}, INPUTS).begin()
    assert not done
    assert "from 10 to 20" in message
    assert not (folder / "half").exists()


def test_a_missing_output_is_done_again(finished):
    (finished.folder / "result.json").unlink()
    (finished.folder / "log").touch()
    assert finished.begin() == (False, "result.json is gone: done again")
    assert (finished.folder / "log").exists()
    assert finished.begin() == (False, "going on where it was stopped")


def test_a_folder_of_someone_else_is_kept_aside(stage, folder):
    folder.mkdir()
    (folder / "thesis.tex").touch()
    kept = folder.with_name("search.1")
    assert stage.begin() == (False, f"no record of how {folder} was made; kept as {kept}")
    assert (kept / "thesis.tex").exists()


def test_an_empty_folder_is_taken(stage, folder):
    folder.mkdir()
    assert stage.begin() == (False, "")
    assert not folder.with_name("search.1").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[{}]", '{"config": {}}', "\udcff"])
def test_a_damaged_record_is_no_record(finished, text):
    (finished.folder / RECORD).write_text(text, "utf-8", errors="surrogateescape")
    done, message = finished.begin()
    assert not done
    assert message.startswith("no record of how")
    assert (finished.folder.with_name("search.1") / "result.json").exists()


def test_keys_with_their_section():
    assert prefixed("search", {"images": 3}) == {"search.images": 3}
