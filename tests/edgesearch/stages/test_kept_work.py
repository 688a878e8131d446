"""Work is read while others write, taken back, extended, and set aside on request only."""

import json

import pytest

from devices.locks import locked
from edgesearch.errors import StageError

RECORD = "supernet/stage.json"


def age(chain, name, minutes):
    """Let a stage have taken so long."""
    chain.write(name, {**chain.read(name), "seconds": 60.0 * minutes})


def test_finished_stages_are_printed_while_another_process_holds_the_folder(chain):
    printed = {stage: chain.passes(stage).stdout for stage in ("validate", "evaluate", "rank")}
    stages = ("profile", "pretrain", "search", "export", "run")
    printed |= {stage: chain.passes(stage).stdout for stage in stages}
    with locked(chain.output_dir / ".lock"):
        for stage, text in printed.items():
            assert chain.passes(stage).stdout == text
        # Only who holds the folder may put this right.
        (chain.output_dir / "winners.json").unlink()
        assert chain.passes("search").stdout == printed["search"]
        assert not (chain.output_dir / "winners.json").exists()
        works = ("pretrain.epochs=1", "pretrain.warmup_epochs=0")
        chain.refuses("pretrain", *works, says="another process is writing there")
        chain.refuses("validate", "validation.seed=9", says="another process is writing there")
        chain.refuses("evaluate", "evaluation.knn_k=4", says="another process is writing there")
        chain.refuses("rank", "search.score=cka", says="another process is writing there")


def test_there_and_back_again_trains_and_searches_once(chain):
    weights = (chain.output_dir / "supernet/model.safetensors").read_bytes()
    winners = chain.read("winners.json")
    chain.passes("run", "pretrain.epochs=1", "export.tensorrt=")
    assert chain.read("winners.json") != winners
    back = chain.passes("run")
    for stage, folder in (("pretrain", "supernet"), ("search", "search"), ("export", "engines")):
        assert f"{stage}: {chain.output_dir / folder}.1 was made with what is asked" in back.stderr
        assert f"{stage}: already finished" in back.stderr
    assert (chain.output_dir / "supernet/model.safetensors").read_bytes() == weights
    assert chain.read("winners.json") == winners
    other = chain.passes("run", "pretrain.epochs=1", "export.tensorrt=").stderr
    assert "pretrain: already finished" in other
    assert "starting over" not in other


def test_hours_are_set_aside_only_with_anew(chain):
    age(chain, RECORD, 150)
    for stage in ("pretrain", "run"):
        said = chain.refuses(stage, "pretrain.epochs=1", says="which took 2.5 hours")
        assert "pretrain.epochs has changed from 2 to 1" in said
        assert "set pretrain.epochs=2, or choose another output_dir" in said
        assert "set pretrain.extend=true" in said
    assert not (chain.output_dir / "supernet.1").exists()
    with pytest.raises(StageError, match="add --anew"):
        chain.api(pretrain={"epochs": 1}).pretrain()
    chain.passes("pretrain", "pretrain.epochs=1", "--anew")
    assert chain.read("supernet.1/stage.json")["seconds"] == 9000
    # What is taken back is not lost: nothing is asked.
    assert "is taken back" in chain.passes("pretrain").stderr

    age(chain, "search/stage.json", 10)
    chain.passes("search", "search.budgets.macs=600000")  # scores are used again
    age(chain, "search/stage.json", 10)
    chain.refuses("search", "search.score=cka", says="the search stage in")
    age(chain, "engines/stage.json", 10)
    chain.refuses("export", "export.output=logits", says="export.output has changed")
    chain.api(export={"output": "embeddings", "tensorrt": None}).export(anew=True)


def epochs_of(chain, name="supernet"):
    return [json.loads(line)["epoch"] for line in chain.lines(f"{name}/metrics.jsonl")]


def test_a_finished_training_is_extended(chain):
    age(chain, RECORD, 150)
    longer = ("pretrain.epochs=4", "pretrain.extend=true")
    before = (chain.output_dir / "supernet/model.safetensors").read_bytes()
    done = chain.passes("pretrain", *longer)
    assert f"continues the 2 epochs of {chain.output_dir / 'supernet'}.1" in done.stderr
    both = "pretrain.epochs has changed from 2 to 4; pretrain.extend has changed from false to true"
    assert both in done.stderr
    assert "going on from a finished training; the former output is kept" in done.stderr
    assert epochs_of(chain) == [1, 2, 3, 4]
    rates = [json.loads(line)["lr"] for line in chain.lines("supernet/metrics.jsonl")]
    assert rates[1] < rates[2] / 10, "from 0 to where the longer schedule is"
    assert rates[3] < rates[2]
    assert "already finished" in chain.passes("pretrain", *longer).stderr
    # The shorter one is as it was, and comes back.
    assert (chain.output_dir / "supernet.1/model.safetensors").read_bytes() == before
    assert "is taken back" in chain.passes("pretrain").stderr
    assert epochs_of(chain) == [1, 2]
    # The present one is continued, even if a longer one was set aside.
    chain.passes("pretrain", "pretrain.epochs=3", "pretrain.extend=true")
    assert epochs_of(chain) == [1, 2, 3]
    again = chain.passes("pretrain", "pretrain.epochs=5", "pretrain.extend=true")
    assert "continues the 3 epochs of" in again.stderr
    # The longest of those set aside, if the present one is no such training.
    chain.passes("pretrain", "pretrain.epochs=1")
    chain.passes("pretrain", "pretrain.epochs=1", "pretrain.lr=0.01")
    again = chain.passes("pretrain", "pretrain.epochs=6", "pretrain.extend=true")
    assert "continues the 5 epochs of" in again.stderr
    message = "fewer than 1 epochs for pretrain.extend"
    chain.refuses("pretrain", "pretrain.epochs=1", "pretrain.extend=true", says=message)


class TestExtensionOfDamagedStates:
    LONGER = ("pretrain.epochs=3", "pretrain.extend=true")

    @pytest.fixture
    def damaged(self, chain):
        """A finished training without a state that can be read; its states' contents."""
        states = {}
        for name in ("state.pt", "state.previous.pt"):
            path = chain.output_dir / "supernet" / name
            states[path] = path.read_bytes()
            path.write_bytes(states[path][:1000])
        return states

    def test_is_refused_before_anything_is_set_aside(self, chain, damaged):
        for stage in ("pretrain", "plan", "run"):
            said = f"for pretrain.extend at {chain.output_dir / 'supernet/state.pt'}, or the one"
            chain.refuses(stage, *self.LONGER, says=said)
        assert not (chain.output_dir / "supernet.1").exists()
        assert "already finished" in chain.passes("pretrain").stderr

    def test_what_is_advised_works(self, chain, damaged, tmp_path):
        age(chain, RECORD, 150)
        said = chain.refuses("pretrain", *self.LONGER)
        weights = chain.output_dir / "supernet/model.safetensors"
        assert f" output_dir=ANOTHER pretrain.init={weights} pretrain.extend=false." in said
        other = (f"output_dir={tmp_path / 'other'}", f"pretrain.init={weights}")
        chain.passes("pretrain", *self.LONGER, *other, "pretrain.extend=false")
        assert "set pretrain.extend=false and add --anew" in said
        chain.passes("pretrain", *self.LONGER, "pretrain.extend=false", "--anew")
        assert epochs_of(chain) == [1, 2, 3]
        assert epochs_of(chain, "supernet.1") == [1, 2]

    def test_one_that_is_restored_is_enough(self, chain, damaged):
        path = chain.output_dir / "supernet" / "state.previous.pt"
        path.write_bytes(damaged[path])
        assert "after epoch 1" in chain.passes("pretrain", *self.LONGER).stderr
        assert epochs_of(chain) == [1, 2, 3]


@pytest.mark.parametrize(
    "outputs",
    [
        {"pretrain": "supernet/model.safetensors"},
        {"search": "search/chosen.json", "summary": "summary/summary.json"},
    ],
)
def test_damaged_output_of_finished_stages_is_told_at_once_and_made_again(chain, outputs):
    before = {}
    for name in outputs.values():
        path = chain.output_dir / name
        before[path] = path.read_bytes()
        path.unlink()  # what has been loaded may be a map of the file
        path.write_bytes(before[path][:100])
    told = chain.passes("run").stderr
    for (stage, name), (path, content) in zip(outputs.items(), before.items(), strict=True):
        said = f"{name.partition('/')[2]} has changed since it was made"
        planned = next(line for line in told.splitlines() if line.startswith(f"plan: {stage}: "))
        assert f"({said})" in planned
        assert f"{stage}: {said} (kept as {path.name}.1): starting again" in told
        assert path.with_name(f"{path.name}.1").read_bytes() == content[:100]
        assert chain.read(f"{path.parent.name}/stage.json")["finished"]
        if stage == "pretrain":
            assert path.read_bytes() == content
    chosen = chain.output_dir / "search/chosen.json"
    former = before.get(chosen, chosen.read_bytes())
    assert architectures_in(chosen.read_bytes()) == architectures_in(former)
    # In a busy hour an export may have fitted the predictions again, which are in the same file.
    assert chosen.read_bytes() != former or "export: already finished" in told


def architectures_in(content):
    return [winner["architecture"] for winner in json.loads(content)["winners"]]


def test_a_lost_correction_is_fitted_again(chain):
    chain.change_table(lambda lines: [line for line in lines if "correction" not in str(line)])
    (planned,) = (each for each in chain.json("plan")["stages"] if each["name"] == "profile")
    assert (planned["state"], planned["work"][:15]) == ("begun", "fit predictions")
    assert "export: already finished" in chain.passes("run").stderr
    assert '"correction"' in chain.table.read_text("utf-8")


@pytest.mark.parametrize(
    ("command", "sections", "outdated"),
    [
        ("search", {"pretrain": {"epochs": 9}}, "pretrain.epochs has changed from"),
        ("export", {"pretrain": {"epochs": 9}}, "pretrain.epochs has changed from"),
        ("export", {"search": {"evaluations": 13}}, "search.evaluations has changed from"),
    ],
)
def test_results_made_with_other_settings_are_told_where_they_are_used(
    chain, command, sections, outdated
):
    told = []
    for given in ({}, sections):
        run = chain.api(**given)
        run.report = lambda event: told.append(event.message)
        getattr(run, command)()
        warnings = [text for text in told if "was made with other settings" in text]
        assert len(warnings) == bool(given)
        assert all(outdated in text for text in warnings)
