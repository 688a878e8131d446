"""Values in messages are written as in YAML, and wrong names answered with right ones."""

import datetime
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from devices.values import did_you_mean, in_shell, in_yaml


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -7, 0.1, float("inf"), float("-inf"), "", "a", "it's", 'a "b"'),
        *(
            "a\nb",
            "a\\b",
            "grün",
            "\t",
            "\0\x85\u2028",
            "\n😀",
            "null",
            [],
            [1, None, "x"],
            {"a": None, "b": [True]},
        ),
        datetime.date(2026, 11, 28),
    ],
)
def test_yaml_reads_it_back(value):
    assert yaml.safe_load(in_yaml(value)) == value


def test_other_forms():
    assert in_yaml((1, (True,))) == "[1, [true]]"
    assert in_yaml(Path("a/b")) == "'a/b'"
    assert in_yaml(float("nan")) == ".nan"
    assert in_yaml("a\udcff") == '"a\\udcff"'
    assert len(in_yaml("x" * 1000)) < 70 > len(in_yaml("\\" * 1000)) / 2
    assert len(in_yaml(list(range(1000)))) < 70


def test_a_wrong_name_is_answered_with_what_it_is_like():
    assert did_you_mean("thread", ["batch", "threads"]) == "Did you mean threads?"
    assert did_you_mean("cifar", ["MNIST", "CIFAR10", "CIFAR100"], most=3) == (
        "Did you mean CIFAR10 or CIFAR100?"
    )
    assert did_you_mean("epoch", {"epochs": "pretrain.epochs"}) == "Did you mean pretrain.epochs?"
    assert did_you_mean("x", ["threads"]) == ""
    assert did_you_mean("", ["threads"], "Choose one.") == "Choose one."


def test_a_path_is_one_argument_and_no_option():
    for path in ("a b.yaml", "-x.yaml", "it's", "$HOME", "ünï.yaml", "--all"):
        assert shlex.split(in_shell(path)) == [f"./{path}" if path[0] == "-" else path]
    assert in_shell(Path("runs/1")) == "runs/1"


def test_a_path_with_control_characters_is_one_line_that_bash_reads():
    for path in ("a\nb", "-\t'\\", "\x01" + "7", "ü\udce4", "😀 \x7f"):
        shown = in_shell(path)
        assert shown.isprintable()
        said = subprocess.run(["bash", "-c", f"printf %s {shown}"], stdout=subprocess.PIPE).stdout
        assert os.fsdecode(said) == (f"./{path}" if path[0] == "-" else path)
