"""Bars on a terminal, plain lines otherwise."""

import os
import pty
import subprocess
import sys

import pytest

from edgesearch.cli import progress
from edgesearch.events import Event


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def steps(shown, clock, count, seconds):
    for step in range(1, count + 1):
        clock.now += seconds
        shown.show(Event("pretrain", f"step at {clock.now:g}", step, count, within=True))


def test_within_a_short_epoch_no_line_is_printed(clock, capsys):
    with progress.Progress() as shown:
        for epoch in (1, 2, 3):
            steps(shown, clock, 10, 5.0)
            shown.show(Event("pretrain", "loss", epoch, 3))
    assert capsys.readouterr().err == "".join(f"pretrain {n}/3: loss\n" for n in (1, 2, 3))


def test_within_a_long_epoch_a_line_a_minute_is_printed(clock, capsys):
    with progress.Progress() as shown:
        steps(shown, clock, 100, 2.0)
        shown.show(Event("pretrain", "a notice"))
        steps(shown, clock, 30, 2.0)
    printed = capsys.readouterr().err.splitlines()
    assert printed == [
        "pretrain 30/100: step at 1060",
        "pretrain 60/100: step at 1120",
        "pretrain 90/100: step at 1180",
        "pretrain: a notice",
        "pretrain 30/30: step at 1260",
    ]


def rounds(shown, clock, pairs, seconds):
    for done, total in pairs:
        clock.now += seconds
        shown.show(Event("profile", "rounds measured", done, total))


MORE_THAN_PLANNED = [(done, max(done, 6)) for done in range(1, 31)]


def test_more_rounds_than_planned_are_told_as_seldom_as_the_others(clock, capsys):
    with progress.Progress() as shown:
        rounds(shown, clock, MORE_THAN_PLANNED, 0.25)
        printed = capsys.readouterr().err.splitlines()
        counts = [line.removesuffix(": rounds measured") for line in printed]
        assert counts == [f"profile {each}" for each in ("1/6", "6/6", "14/14", "22/22", "30/30")]
        rounds(shown, clock, [(31, 31), (32, 32)], 0.25)
        shown.show(Event("profile", "a notice"))
        assert capsys.readouterr().err == "profile: a notice\n"
    assert capsys.readouterr().err == "profile 32/32: rounds measured\n"


def test_the_last_of_more_rounds_than_planned_is_told_before_the_next_work(clock, capsys):
    with progress.Progress() as shown:
        rounds(shown, clock, [(1, 1), (2, 2), (3, 3), (1, 1)], 0.25)
        shown.show(Event("validate", "rounds measured", 1, 1))
    lines = [f"profile {n}/{n}: rounds measured\n" for n in (1, 3, 1)]
    assert capsys.readouterr().err == "".join([*lines, "validate 1/1: rounds measured\n"])


def test_short_works_of_equal_length_are_all_told(clock, capsys):
    with progress.Progress() as shown:
        for resolution in (16, 24, 32):
            shown.show(Event("profile", f"{resolution} px exported", 1, 1))
    printed = capsys.readouterr().err
    assert printed == "".join(f"profile 1/1: {n} px exported\n" for n in (16, 24, 32))


def test_how_much_is_shown(capsys):
    events = [
        Event("search", "warning: the table is old"),
        Event("export", "warning: the table is old"),
        Event("search", "a notice"),
        Event("search", "a detail", detail=True),
        Event("search", "work", 1, 1),
    ]
    shown = {}
    for verbosity in progress.Verbosity:
        with progress.Progress(verbosity) as it:
            for event in events:
                it.show(event)
        shown[verbosity.name] = capsys.readouterr().err.splitlines()
    assert shown["QUIET"] == ["search: warning: the table is old"]
    assert shown["USUAL"] == [*shown["QUIET"], "search: a notice", "search 1/1: work"]
    assert shown["VERBOSE"] == [*shown["USUAL"][:2], "search: a detail", "search 1/1: work"]


ON_A_TERMINAL = """
import time
from edgesearch.cli.progress import Progress
from edgesearch.events import Event
with Progress() as progress:
    for epoch in (1, 2):
        for step in range(1, 5):
            message = f"epoch {epoch}, loss 5.0, 512 images/s, 3:10:00 left of the run"
            progress.show(Event("pretrain", message, step, 4, within=True))
            time.sleep(0.15)
        progress.show(Event("pretrain", "a notice"))
        progress.show(Event("pretrain", "loss 5.0 largest", epoch, 2))
print("out")
"""


ROUNDS_ON_A_TERMINAL = """
from edgesearch.cli.progress import Progress
from edgesearch.events import Event
with Progress() as progress:
    for done, total in ((1, 2), (2, 2)):
        progress.show(Event("profile", "blocks exported", done, total))
    for done in range(1, 31):
        progress.show(Event("profile", "rounds measured", done, max(done, 6)))
print("out")
"""


def shown_on_a_terminal(columns, program=ON_A_TERMINAL, term="xterm"):
    terminal, its_end = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": term}
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stderr=its_end, stdout=subprocess.PIPE, env=environment)
    os.close(its_end)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    assert process.communicate()[0] == b"out\n"
    assert process.returncode == 0
    return shown.decode(errors="surrogateescape")


def test_on_a_terminal_there_are_bars_for_the_run_and_within_the_epoch():
    text = shown_on_a_terminal(160)
    for epoch in (1, 2):
        assert f"epoch {epoch}, loss 5.0, 512 images/s, 3:10:00 left of the run" in text
    assert all(f"{step}/4" in text for step in (1, 2, 3))
    assert "1/2" in text and "2/2" in text
    assert "pretrain a notice" in text
    last_drawing = text[text.rindex("a notice") :]
    assert "2/2" in last_drawing
    assert "4/4" not in last_drawing[last_drawing.rindex("2/2") :]


def test_on_a_narrow_terminal_nothing_is_cut_off():
    text = shown_on_a_terminal(80)
    message = "epoch 1, loss 5.0, 512 images/s, 3:10:00 left of the run"
    for word in (*message.split(), "pretrain", "━━━━━"):
        assert word in text
    assert all(f"{step}/4" in text for step in (1, 2, 3))
    assert "1/2" in text and "2/2" in text
    assert "…" not in text


def test_on_a_terminal_more_rounds_than_planned_move_one_bar():
    text = shown_on_a_terminal(160, ROUNDS_ON_A_TERMINAL)
    last_drawing = text[text.rindex("30/30") :]
    assert "blocks exported" not in last_drawing
    assert last_drawing.count("rounds measured") == 1


MARKUP = r"""
from edgesearch.cli.progress import Progress
from edgesearch.events import Event
with Progress() as progress:
    for text in ("x[/y] :smile: [red]", "a\x1b]0;title\x07b", "surrogate \udcff"):
        progress.show(Event("profile", text))
        progress.show(Event("profile", "bar of " + text, 1, 2))
    raised = progress.show(Event("[/z]", "[bold", 2, 2))
print("out")
"""


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_nothing_of_the_user_is_markup(term):
    text = shown_on_a_terminal(
        160,
        "from edgesearch.cli.console import prepare_streams\nprepare_streams()\n" + MARKUP,
        term,
    )
    for each in ("x[/y] :smile: [red]", "a\\x1b]0;title\\x07b", "[/z]", "[bold"):
        assert each in text
        if each[0] != "[" and term == "xterm":
            assert f"bar of {each}" in text
    assert "\x1b]0;" not in text
    assert ("\x1b" in text) == (term == "xterm")


@pytest.mark.parametrize("columns", ["1", "20", "0", "abc"])
def test_strange_widths(columns):
    text = "".join(shown_on_a_terminal(columns).split())
    assert "pretrain" in text
    assert "anotice" in text
