"""Every trial is kept, whatever stops the search."""

import json

import pytest

from devices.errors import FileError
from edgesearch.errors import SearchError
from edgesearch.search.trial_log import Trial, TrialLog

IDENTITY = {"the latency table": "aa", "the supernet's weights": "bb"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "search" / "trials.jsonl"


@pytest.fixture
def trials(space):
    return [Trial(space.architecture(i), i / 7, i + 0.1, 1e6 * i, 10.0 * i) for i in range(5)]


@pytest.fixture
def written(path, trials, space):
    log = TrialLog(path, space, IDENTITY)
    for trial in trials:
        log.add(trial)
    return path


def test_round_trip(written, trials, space):
    log = TrialLog(written, space, IDENTITY)
    assert log.trials == {trial.architecture: trial for trial in trials}
    assert Trial.from_dict(json.loads(json.dumps(trials[3].to_dict())), space) == trials[3]


def test_each_trial_is_on_disk_at_once(path, trials, space):
    log = TrialLog(path, space, IDENTITY)
    for count, trial in enumerate(trials, 2):
        log.add(trial)
        assert len(path.read_text("utf-8").splitlines()) == count


@pytest.mark.parametrize("torn", [b"{", b'{"architecture": {"stem_width": 4', b"\xff\xfe"])
def test_a_torn_last_line_is_cut_off(written, trials, torn, space):
    with written.open("ab") as file:
        file.write(torn)
    log = TrialLog(written, space, IDENTITY)
    assert list(log.trials.values()) == trials
    log.add(trials[0])
    assert [json.loads(line) for line in written.read_text("utf-8").splitlines()][1:] == [
        trial.to_dict() for trial in [*trials, trials[0]]
    ]


def test_any_cut_leaves_what_was_whole(written, trials, space):
    data = written.read_bytes()
    for length in range(0, len(data), 7):
        written.write_bytes(data[:length])
        whole = max(0, data[:length].count(b"\n") - 1)
        assert list(TrialLog(written, space, IDENTITY).trials.values()) == trials[:whole]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "line 3: b?'nonsense'"),
        ("[1]", "line 3: "),
        ('{"agreement": 1}', "line 3: no 'architecture'"),
        ("\udcff", "line 3: "),
    ],
)
def test_a_damaged_line_is_refused(written, line, reason, space):
    lines = written.read_text("utf-8").splitlines()
    lines[2] = line
    written.write_text("\n".join(lines) + "\n", "utf-8", errors="surrogateescape")
    message = f"one JSON object a line, in {written}; found: {reason}.*Move the file away"
    with pytest.raises(FileError, match=message):
        TrialLog(written, space, IDENTITY)


@pytest.mark.parametrize("header", ["[]", "{}", '{"format": 1, "identity": 7}'])
def test_a_foreign_file_is_refused(path, header, space):
    path.parent.mkdir()
    path.write_text(header + "\n", "utf-8")
    with pytest.raises(FileError, match="trials .*; found: "):
        TrialLog(path, space, IDENTITY)
    assert path.read_text("utf-8") == header + "\n"


def test_another_search_names_the_field_with_both_values(written, space):
    message = "trials with the supernet's weights 'cc' in .*; found: the supernet's weights 'bb'"
    with pytest.raises(SearchError, match=message):
        TrialLog(written, space, {**IDENTITY, "the supernet's weights": "cc"})


def test_another_format_is_refused(written, space):
    first, rest = written.read_text("utf-8").split("\n", 1)
    written.write_text(f"{json.dumps({**json.loads(first), 'format': 2})}\n{rest}", "utf-8")
    with pytest.raises(SearchError, match="trials with format 1 in .*; found: format 2"):
        TrialLog(written, space, IDENTITY)


def test_scores_of_another_log_are_taken_over(written, trials, tmp_path, space):
    log = TrialLog(tmp_path / "other" / "trials.jsonl", space, IDENTITY)
    own = Trial(trials[1].architecture, 0.9, 1.0, 1.0, 1.0)
    log.add(own)
    assert log.adopt(written) == 4
    expected = [own, trials[0], *trials[2:]]
    assert list(log.trials.values()) == expected
    assert list(TrialLog(log.path, space, IDENTITY).trials.values()) == expected
    assert log.adopt(written) == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"bb"', '"cc"', 1),
        lambda text: text.replace('"agreement"', '"other"', 1),
        lambda text: "",
        lambda text: "no JSON\n" + text,
    ],
)
def test_another_log_that_does_not_fit_is_left_alone(written, tmp_path, spoil, space):
    spoilt = spoil(written.read_text("utf-8"))
    written.write_text(spoilt, "utf-8")
    log = TrialLog(tmp_path / "trials.jsonl", space, IDENTITY)
    assert log.adopt(written) == log.adopt(tmp_path / "missing.jsonl") == 0
    assert log.trials == {}
    assert written.read_text("utf-8") == spoilt


def test_another_log_that_is_damaged_is_told(written, tmp_path, space):
    first, second, *rest = written.read_text("utf-8").splitlines()
    written.write_text("\n".join([first, second[:20], *rest]) + "\n", "utf-8")
    told = []
    assert TrialLog(tmp_path / "trials.jsonl", space, IDENTITY).adopt(written, told.append) == 0
    (message,) = told
    assert message.startswith(f"the scores in {written} are not used again: damaged, line 2: ")


def test_a_torn_line_of_another_log_is_left_out(written, tmp_path, space):
    written.write_bytes(written.read_bytes()[:-9])
    assert TrialLog(tmp_path / "trials.jsonl", space, IDENTITY).adopt(written) == 4
