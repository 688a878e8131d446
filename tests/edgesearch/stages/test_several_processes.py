"""Training, search and ranking in two processes: one result, one writer and one end for all."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FILES = ("trials.jsonl", "images.json", "pareto.json", "ranking.json", "chosen.json")
# Small batches and many images, so that there are moments to be stopped in.
LONG = (
    *("search.evaluations=24", "search.candidates_at_once=4", "search.budgets.macs=null"),
    *("search.images=1024", "search.calibration_images=256"),
)
MOBILE = (
    "space={name: mobile, family: mobile, activation: relu6, padding: tensorflow, in_channels: 1, "
    "stem_widths: [4, 8], stage_strides: [1, 2], stage_widths: [[8], [8, 16]], "
    "stage_depths: [[1], [1, 2]], stage_kernels: [[3], [3, 5]], stage_expansions: [[2], [2, 3]], "
    "head_widths: [16], resolutions: [16]}"
)


def launch(*command, **names):
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in names.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(chain, *arguments):
    options = ("--nproc-per-node", "2", "--standalone", "-m", "edgesearch")
    work = chain.command(*arguments)[3:]
    return launch(sys.executable, "-m", "torch.distributed.run", *options, *work)


def in_two(chain, *arguments, second=()):
    """The two processes that torchrun would start; what is wrong may be so in one alone."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        names = {"MASTER_ADDR": "localhost", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": 2}
    return [
        launch(*chain.command(*arguments), *own, RANK=rank, LOCAL_RANK=rank, **names)
        for rank, own in enumerate(((), second))
    ]


def ends_of(running):
    """Exit codes, and what all of them said on standard error."""
    said = [process.communicate(timeout=600)[1] for process in running]
    return [process.returncode for process in running], "".join(said)


def worker(agent, rank):
    """The process of a rank that an agent of torchrun started."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text("utf-8").split()
    for pid in map(int, children):
        with contextlib.suppress(OSError):
            if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text("utf-8").split("\0"):
                return pid
    return None


def trials(chain):
    return chain.lines("search/trials.jsonl")


def results(chain):
    paths = [*(chain.output_dir / "search" / name for name in FILES)]
    return [path.read_bytes() for path in (*paths, chain.output_dir / "winners.json")]


def without_search(finished, folder):
    """A state in which nothing but the search is to be done."""
    chain = finished[0].copied(folder)
    shutil.rmtree(chain.output_dir / "search")
    (chain.output_dir / "winners.json").unlink()
    return chain


@pytest.fixture
def fresh(finished, tmp_path):
    return without_search(finished, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory):
    """The results of a longer search by one process."""
    chain = without_search(finished, tmp_path_factory.mktemp("undisturbed"))
    chain.passes("search", *LONG)
    return results(chain)


def test_a_search_of_two_comes_to_the_same(fresh, undisturbed):
    codes, said = ends_of(in_two(fresh, "search", *LONG))
    assert codes == [0, 0], said
    assert said.count("search: work split over 2 processes, 1 threads each") == 1
    assert said.count("search 24/24: agreement") == 1
    assert results(fresh) == undisturbed


@pytest.mark.slow
def test_a_fault_of_one_is_said_once_and_ends_both(fresh):
    codes, said = ends_of(in_two(fresh, "search", second=("data.holdout=0.3",)))
    assert codes == [2, 2]
    assert said.count("error: required:") == 1
    assert "the set of images to be the same for all processes\n  found: another for pro" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("space", [(), (MOBILE,)], ids=["resnet", "mobile"])
def test_training_under_torchrun_has_one_writer_and_one_voice(empty, space):
    sizes = ("pretrain.batch_size=256", "pretrain.queue_size=256")
    short = ("pretrain.epochs=1", *sizes, *space)
    for skipped in (False, True):
        running = torchrun(empty, "pretrain", *short, "pretrain.bn_group_size=32", "--json")
        out, err = running.communicate(timeout=600)
        assert running.returncode == 0, err
        assert json.loads(out)["skipped"] is skipped
        assert err.count("pretrain 1/1: loss") == (not skipped)
    assert [json.loads(line)["epoch"] for line in empty.lines("supernet/metrics.jsonl")] == [1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "override", "message"),
    [
        ("pretrain", "pretrain.bn_group_size=48", "to one of 2, 4, 8, 16, 32."),
        ("pretrain", "pretrain.epochs=none", "pretrain.epochs"),
        ("run", "pretrain.bn_group_size=32", "required: one process for `edgesearch run`"),
        ("search", "seed=0", "Run `edgesearch p"),  # profile or pretrain: whoever comes first
    ],
)
def test_what_is_wrong_is_said_once_under_torchrun(empty, command, override, message):
    (code,), said = ends_of([torchrun(empty, command, override)])
    assert code != 0
    assert said.count("error: required:") == 1
    assert message in said
    assert "bug in edgesearch" not in said


@pytest.mark.slow
def test_each_of_two_processes_is_killed_and_one_goes_on(fresh, undisturbed, wait_for):
    both = in_two(fresh, "search", *LONG)
    wait_for(lambda: len(trials(fresh)) > 4, *both)
    both[1].kill()
    codes, said = ends_of(both)
    assert codes == [2, -signal.SIGKILL]
    assert said.count("all 2 processes of the run\n  found: one that has ended") == 1
    assert 4 < (known := len(trials(fresh))) < 25

    agent = torchrun(fresh, "search", *LONG)
    wait_for(lambda: len(trials(fresh)) > known, agent)
    os.kill(worker(agent, 0), signal.SIGKILL)
    codes, said = ends_of([agent])
    assert codes != [0]
    assert (
        said.count("Run the same command again to continue.") + said.count("error: required") == 1
    )
    assert known < len(trials(fresh)) <= 25
    assert not (fresh.output_dir / "winners.json").exists()

    assert "resuming where it was stopped" in fresh.passes("search", *LONG).stderr
    assert results(fresh) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("start", [in_two, torchrun])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_both_and_any_number_goes_on(fresh, undisturbed, wait_for, start, number):
    started = start(fresh, "search", *LONG)
    running = started if isinstance(started, list) else [started]
    wait_for(lambda: len(trials(fresh)) > 4, *running)
    running[-1].send_signal(number)
    codes, said = ends_of(running)
    assert codes == [130, 130] if start is in_two else codes != [0]
    assert said.count("search stopped; its trials are in") == 1
    assert said.count("Run the same command again to continue.") == 1
    assert start is torchrun or "Traceback" not in said  # torchrun's own agent shows one
    fresh.passes("search", *LONG)
    assert results(fresh) == undisturbed


@pytest.mark.slow
def test_ranking_in_two_processes_comes_to_the_same(fresh):
    few = ("rank.subnets=5", "rank.bins=2", "rank.draws=100")
    codes, said = ends_of(in_two(fresh, "rank", *few))
    assert codes == [0, 0], said
    assert said.count("rank 5/5: agreement") == 1
    both = shutil.move(fresh.output_dir / "rank", fresh.output_dir / "in_two")
    fresh.passes("rank", *few)
    for name in ("subnets.jsonl", "rank.csv"):
        assert (both / name).read_bytes() == (fresh.output_dir / "rank" / name).read_bytes()
