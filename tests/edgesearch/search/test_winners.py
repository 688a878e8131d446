"""winners.json as values."""

import json

import pytest

from edgesearch.errors import StageError
from edgesearch.families import load_space
from edgesearch.search.winners import Winner, Winners

AS_SEARCHED = {"predicted": 2.0, "predicted_p95": 3.0, "budget": 4.0, "budget_p95": 5.0}


@pytest.fixture(scope="module")
def space():
    return load_space("resnet_tiny")


@pytest.fixture
def winners(space):
    first, second, third = (
        Winner(
            name, space.architecture(i), 1 - i / 10, 1e6, 1e4, {"local-cpu": AS_SEARCHED}, (0, 1), 9
        )
        for i, name in enumerate(("w0", "r0", "r1"))
    )
    return Winners(space.name, space.space_hash, (first,), (second, third))


def test_figures_are_added_to_those_of_the_device(winners):
    (winner,) = winners.winners
    measured = winner.with_latency("local-cpu", measured_p50=2.5).with_latency("board", budget=9)
    assert measured.latency_ms == {
        "local-cpu": {**AS_SEARCHED, "measured_p50": 2.5},
        "board": {"budget": 9},
    }
    assert winner.latency_ms == {"local-cpu": AS_SEARCHED}


def test_round_trip(winners, space, tmp_path):
    path = tmp_path / "winners.json"
    winners.save(path)
    assert Winners.load(path, space) == winners


def test_winners_of_another_space_are_refused(winners, tmp_path):
    path = tmp_path / "winners.json"
    winners.save(path)
    other = load_space("resnet_tiny", in_channels=1)
    message = (
        rf"winners of the space 'resnet_tiny' \({other.space_hash}\) in {path}; "
        rf"found: winners of 'resnet_tiny' \({winners.space_hash}\)"
    )
    with pytest.raises(StageError, match=message):
        Winners.load(path, other)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda values: values.pop("space_hash"), "KeyError: 'space_hash'"),
        (lambda values: values.update(winners=[{}]), "KeyError: 'agreement_interval'"),
        (lambda values: values.update(reserves=None), "TypeError"),
    ],
)
def test_damaged_winners_are_refused(winners, space, tmp_path, spoil, reason):
    path = tmp_path / "winners.json"
    winners.save(path)
    values = json.loads(path.read_text("utf-8"))
    spoil(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(
        StageError, match=f"the winners of a search in {path}; found: {reason}.*Move it"
    ):
        Winners.load(path, space)


def test_a_torn_file_of_winners_is_to_be_moved_away(space, tmp_path):
    """A search that is finished would not write it again."""
    (tmp_path / "winners.json").write_text("{", encoding="utf-8")
    with pytest.raises(StageError, match="Move it away, and run `edgesearch search`"):
        Winners.load(tmp_path / "winners.json", space)


def test_missing_winners_name_the_command(space, tmp_path):
    with pytest.raises(StageError, match="found: no such file. Run `edgesearch search`"):
        Winners.load(tmp_path / "winners.json", space)
