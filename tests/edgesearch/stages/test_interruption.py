"""Every stage, stopped by signals and by a kill, goes on and comes to the same end."""

import json
import shutil
import signal

import pytest


def stopping_by(fast):
    """One signal for every run of the tests, the others for `-m slow`: each costs many seconds."""
    return pytest.mark.parametrize(
        "number",
        [
            pytest.param(number, marks=() if number == fast else pytest.mark.slow, id=number.name)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        ],
    )


EPOCHS = "pretrain.epochs=6"
# Many images, so that a trial takes long enough to be stopped in.
SLOW = ("search.images=1024", "search.calibration_images=256")


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def check_stopped(done, number):
    if number == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 130, done.stderr
        assert "Run the same command again to go on." in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    """A copy of the finished run in which longer stages ran through."""
    chain = finished[0].copied(tmp_path_factory.mktemp("undisturbed"))
    for stage, overrides in (("pretrain", [EPOCHS]), ("search", SLOW)):
        done = chain.run(stage, *overrides)
        assert done.returncode == 0, done.stderr
    return chain.output_dir


@stopping_by(signal.SIGTERM)
def test_profile(chain, number):
    (table,) = (chain.output_dir / "latency").glob("*.jsonl")
    keys = {json.loads(line).get("key") for line in lines(table)}
    table.unlink()
    rounds = "profile.rounds=400"
    done = chain.stopped("profile", number, lambda: len(lines(table)) > 100, rounds)
    check_stopped(done, number)
    before = table.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    done = chain.run("profile", "profile.rounds=4")
    assert done.returncode == 0, done.stderr
    assert table.read_bytes().startswith(whole)
    measured = {json.loads(line).get("key") for line in lines(table)}
    assert {k for k in keys if k and not k.startswith("winner/")} == measured - {None}


@stopping_by(signal.SIGKILL)
def test_pretrain(chain, undisturbed, number):
    weights = chain.output_dir / "supernet/model.safetensors"
    metrics = chain.output_dir / "supernet/metrics.jsonl"
    shutil.rmtree(chain.output_dir / "supernet")
    done = chain.stopped("pretrain", number, lambda: len(lines(metrics)) >= 2, EPOCHS)
    check_stopped(done, number)
    done = chain.run("pretrain", EPOCHS)
    assert done.returncode == 0, done.stderr
    assert "going on where it was stopped" in done.stderr
    assert [json.loads(line)["epoch"] for line in lines(metrics)] == [1, 2, 3, 4, 5, 6]
    assert weights.read_bytes() == (undisturbed / "supernet/model.safetensors").read_bytes()


@stopping_by(signal.SIGKILL)
def test_search(chain, undisturbed, number):
    trials = chain.output_dir / "search/trials.jsonl"
    for stage in ("supernet", "search"):
        shutil.rmtree(chain.output_dir / stage)
    shutil.copytree(undisturbed / "supernet", chain.output_dir / "supernet")
    done = chain.stopped("search", number, lambda: len(lines(trials)) > 4, *SLOW)
    check_stopped(done, number)
    before = lines(trials)
    done = chain.run("search", *SLOW)
    assert done.returncode == 0, done.stderr
    assert lines(trials)[: len(before) - 1] == before[:-1]
    assert lines(trials) == lines(undisturbed / "search/trials.jsonl")
    chosen = (undisturbed / "winners.json").read_bytes()
    assert (chain.output_dir / "winners.json").read_bytes() == chosen


@stopping_by(signal.SIGINT)
def test_export(chain, number):
    shutil.rmtree(chain.output_dir / "engines")
    done = chain.stopped(
        "export", number, lambda: (chain.output_dir / "engines/w0/subnet.onnx").exists()
    )
    check_stopped(done, number)
    assert not (chain.output_dir / "engines/w0/manifest.json").exists()
    done = chain.run("export")
    assert done.returncode == 0, done.stderr
    assert (chain.output_dir / "engines/w0/manifest.json").exists()
    assert "measured_p50" in (chain.output_dir / "winners.json").read_text()
