"""Whether a stage is done, and what becomes of what was there."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from devices.errors import FileError
from edgesearch.config import Config
from edgesearch.errors import StageError
from edgesearch.run.context import RunContext
from edgesearch.run.files import RECORD
from edgesearch.run.stage import FINISHED, Stage, read_record, worked_s

SETTINGS = {"search.evaluations": 10, "search.widths": (1, 2)}
INPUTS = {"the weights": "aa"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "search"


@pytest.fixture
def stage(folder):
    return Stage("search", folder, SETTINGS, INPUTS)


def make(stage, minutes=0, output="result.json"):
    """Let a stage finish, after as many minutes."""
    stage.begin()
    record = json.loads((stage.folder / RECORD).read_text("utf-8"))
    began = {**record, "began": record["began"] - 60 * minutes}
    (stage.folder / RECORD).write_text(json.dumps(began), "utf-8")
    (stage.folder / output).write_text("{}", encoding="utf-8")
    stage.finish([output])
    return stage


@pytest.fixture
def finished(stage):
    return make(stage)


def test_a_first_run_tells_nothing(stage, folder):
    folder.mkdir()  # an empty folder is taken
    assert stage.begin() == ""
    record = json.loads((stage.folder / RECORD).read_text("utf-8"))
    assert (record["finished"], record["stage"]) == (False, "search")


def test_a_stopped_run_goes_on(stage):
    stage.begin()
    (stage.folder / "half").touch()
    assert stage.begin() == "resuming where it was stopped"
    assert (stage.folder / "half").exists()


def test_whether_it_is_finished_can_be_asked_without_touching_anything(finished, folder):
    assert finished.is_finished()
    assert not replace(finished, inputs={"the weights": "bb"}).is_finished()
    assert not replace(finished, folder=folder / "none").is_finished()
    assert not replace(finished, intact=lambda: False).is_finished()
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
        (
            {"a": True, "b": 1},
            {"a": False},
            "a has changed from true to false; b has changed from 1 to null: starting over",
        ),
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
    assert Stage("search", folder, after, INPUTS).begin().startswith(message)


def test_a_setting_newer_than_the_record_agrees_with_its_default(finished, folder):
    newer = {**SETTINGS, "pretrain.teacher.grid": 4}
    assert replace(finished, settings=newer).is_finished()
    other = replace(finished, settings={**newer, "pretrain.teacher.grid": 5})
    assert not other.is_finished()
    assert other.begin().startswith("pretrain.teacher.grid has changed from null to 5")


def test_what_was_made_with_something_else_is_kept(finished, folder):
    others = [
        replace(finished, settings={**SETTINGS, "search.evaluations": 20}),
        replace(finished, inputs={"the weights": "bb"}),
    ]
    kept = [folder.with_name(f"search.{number}") for number in (1, 2)]
    told = [other.begin() for other in others]
    assert told[0] == (
        "search.evaluations has changed from 10 to 20: starting over; the former output is kept as "
        f"{kept[0]} (`edgesearch clean` lists and removes such folders)"
    )
    assert told[1].startswith(
        "search.evaluations has changed from 20 to 10; other than before: the weights: starting"
    )
    assert finished.begin().startswith("other than before: the weights: starting over")
    assert (kept[0] / "result.json").exists()
    assert all(path.exists() for path in kept)
    assert [path.name for path in folder.iterdir()] == [RECORD]


def test_a_missing_output_is_done_again(finished):
    (finished.folder / "result.json").unlink()
    (finished.folder / "log").touch()
    assert finished.begin() == "result.json is missing: starting again"
    assert (finished.folder / "log").exists()
    assert finished.begin() == "resuming where it was stopped"


class TestChangedOutputs:
    def test_are_kept_and_made_again(self, finished, folder):
        (folder / "result.json").write_text("of another length")
        assert not finished.is_finished()
        assert finished.fault() == "result.json has changed since it was made"
        said = "result.json has changed since it was made (kept as result.json.1): starting again"
        assert finished.begin() == said
        assert (folder / "result.json.1").read_text() == "of another length"
        assert not (folder / "result.json").exists()

    def test_are_noticed_in_files_of_the_same_length(self, finished, folder):
        content = (folder / "result.json").read_bytes()
        (folder / "result.json").write_bytes(bytes(len(content)))
        os.utime(folder / "result.json", ns=(1, 1))
        assert not finished.is_finished()

    def test_are_none_in_a_copy(self, finished, folder):
        shutil.copytree(folder, folder.with_name("copy"), copy_function=shutil.copyfile)
        os.utime(folder.with_name("copy") / "result.json", ns=(1, 1))
        assert replace(finished, folder=folder.with_name("copy")).is_finished()

    def test_are_read_only_if_they_were_written_to(self, finished, folder, monkeypatch):
        monkeypatch.setattr("edgesearch.run.stage.sha256_of", None)
        assert finished.is_finished()

    def test_logs_check_themselves(self, stage, folder):
        make(stage, output="log.jsonl")
        (folder / "log.jsonl").write_text("{}\n{}\n")
        assert stage.is_finished()
        assert stage.fault() == ""


@pytest.mark.parametrize("text", [None, "", "{", "[]", "7", "[{}]", '{"settings": {}}', "\udcff"])
def test_without_a_whole_record_what_is_there_is_kept_aside(finished, folder, text):
    (folder / RECORD).unlink()
    if text is not None:
        (folder / RECORD).write_text(text, "utf-8", errors="surrogateescape")
    kept = folder.with_name("search.1")
    assert finished.begin() == f"no record of how {folder} was made; kept as {kept}"
    assert (kept / "result.json").exists()


class TestTakingBack:
    """A folder that was set aside comes back when its settings do."""

    @pytest.fixture
    def other(self, stage):
        """Set aside `stage`, finished, and finish one of other settings."""
        make(stage)
        return make(replace(stage, settings={"search.evaluations": 20}), output="other.json")

    def test_exchanges_the_two(self, stage, other, folder):
        told = []
        assert stage.take_back(told.append)
        assert stage.is_finished()
        aside = folder.with_name("search.2")
        assert told == [
            f"{folder}.1 was made with what is asked for now, and is taken back; what was in "
            f"{folder} is kept as {aside}"
        ]
        assert not stage.take_back(), "it is there"
        assert other.take_back()
        assert (folder / "other.json").exists()
        assert {path.name for path in folder.parent.glob("search*")} == {"search", "search.1"}

    def test_after_a_kill_between_the_two_renames(self, stage, other, folder):
        folder.rename(folder.with_name("search.2"))
        assert stage.take_back()
        assert stage.is_finished()
        assert other.take_back()

    def test_prefers_what_is_finished_and_then_the_most_work(self, stage, other, folder):
        for number, minutes in enumerate([1, 4, 2], 5):
            each = make(replace(stage, folder=folder.with_name(f"search.{number}")), minutes)
            (each.folder / str(minutes)).touch()
        unfinished = replace(stage, folder=folder.with_name("search.9"))
        make(unfinished, 60)
        (unfinished.folder / "result.json").unlink()
        assert stage.take_back()
        assert (folder / "4").exists()

    def test_takes_nothing_else(self, stage, other, folder):
        different = replace(stage, inputs={"the weights": "cc"})
        folder.with_name("search.1").rename(folder.with_name("search.old"))
        assert not different.take_back()
        assert not stage.take_back(), "only what was set aside by itself counts"


class TestLoss:
    """More than a few minutes of work are set aside on request only."""

    @pytest.fixture
    def long(self, stage):
        return make(stage, minutes=61)

    def test_names_what_changed_how_long_it_took_and_the_ways_on(self, long, folder):
        other = replace(long, settings={"search.evaluations": 20}, instead=" Or extend it.")
        with pytest.raises(StageError) as caught:
            other.check_loss(anew=False)
        error = caught.value
        assert error.required == f"the search stage in {folder}, which took 61 minutes, as it is"
        assert error.found == (
            "search.evaluations has changed from 10 to 20 and search.widths has changed from "
            "[1, 2] to null"
        )
        assert error.remedy == (
            "To keep it, set search.evaluations=10 and set 'search.widths=[1, 2]', or choose "
            "another output_dir. Or extend it. To start over, add --anew (in Python: anew=True): "
            "the former output is kept under another name."
        )
        other.check_loss(anew=True)

    def test_advises_no_key_that_there_is_not(self, folder):
        make(Stage("export", folder, {"latency_of": "head linear for 10 classes"}, {}), 9)
        with pytest.raises(StageError) as caught:
            Stage("export", folder, {"latency_of": "head linear for 3 classes"}, {}).check_loss(
                False
            )
        keep = "To keep it, restore finetune.task, finetune.head and finetune.classes, or choose"
        assert caught.value.remedy.startswith(keep)

    def test_of_other_inputs_of_killed_work_and_of_unknown_origin(self, long, folder):
        with pytest.raises(StageError, match="found: other than before: the weights. To keep it,"):
            replace(long, inputs={"the weights": "bb"}).check_loss(False)
        record = json.loads((folder / RECORD).read_text("utf-8"))
        killed = {**record, "finished": False, "seconds": 0, "began": record["seconds"] - 4000}
        os.utime(folder / "result.json", (record["seconds"], record["seconds"]))
        os.utime(folder / RECORD, (0, 0))
        (folder / RECORD).write_text(json.dumps(killed), "utf-8")
        with pytest.raises(StageError, match="which took"):
            replace(long, settings={}).check_loss(False)
        (folder / RECORD).unlink()
        (folder / "log").touch()
        os.utime(folder / "log", (0, 0))
        with pytest.raises(StageError, match="found: no record of how .* was made. Choose another"):
            long.check_loss(False)

    def test_is_none_where_it_is_short_or_taken_over_or_taken_back(self, long, stage, folder):
        other = replace(stage, settings={**SETTINGS, "search.evaluations": 20})
        replace(other, cheap={"search.evaluations"}).check_loss(False)
        long.check_loss(False)
        replace(other, folder=folder / "none").check_loss(False)
        make(replace(other, folder=folder.with_name("search.7")))
        other.check_loss(False)  # taken back
        short = make(replace(stage, folder=folder.parent / "short"), minutes=2)
        replace(other, folder=short.folder).check_loss(False)

    def test_time_adds_up_over_stops(self, stage, folder):
        for _ in range(3):
            stage.begin()
            record = json.loads((folder / RECORD).read_text("utf-8"))
            began = record["began"] - 65
            (folder / RECORD).write_text(json.dumps({**record, "began": began}), "utf-8")
            (folder / "log").touch()
        assert 190 < worked_s(folder, read_record(folder)) < 210
        with pytest.raises(StageError, match="which took 3 minutes"):
            replace(stage, settings={}).check_loss(False)


class TestDoing:
    @pytest.fixture
    def told(self):
        return []

    @pytest.fixture
    def do(self, stage, small_config, tmp_path, told):
        """Do the stage; what was called is in the list that is returned."""
        config = Config.model_validate({**small_config, "output_dir": str(tmp_path)})
        run = RunContext(config, lambda event: told.append(event.message))

        def do(fails_in=None, stage=stage):
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

        do.run = run
        return do

    def test_once(self, do, told, stage):
        assert do() == ["prepare", "work 7", False]
        assert told == []
        assert do() == [True]
        assert told == [FINISHED]
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

    def test_finished_work_is_read_while_another_process_holds_the_folder(self, do, told, stage):
        do()
        do.run._refusal = FileError("to be the only process", "another one", "Wait.")
        assert do() == [True]
        (stage.folder / "result.json").unlink()
        with pytest.raises(FileError, match="only process"):
            do()

    def test_back_to_former_settings_nothing_is_done_again(self, do, told, stage):
        do()
        other = replace(stage, settings={})
        do(stage=other)
        assert do() == [True]
        assert do(stage=other) == [True]
        assert "is taken back" in told[1]

    def test_long_work_is_refused_before_anything_else(self, do, stage):
        make(stage, minutes=10)
        with pytest.raises(StageError, match="which took 10 minutes"):
            do("prepare", replace(stage, settings={}))
