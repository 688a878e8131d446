"""`edgesearch plan`: what is left of a run, with times from real steps, blocks and candidates."""

import sys

import pytest
from PIL import Image

import edgesearch
from edgesearch.config import Config
from edgesearch.errors import ExportError
from edgesearch.latency.glance import Glimpse
from edgesearch.latency.workloads import block_keys
from edgesearch.pretrain.trainer import Trainer
from edgesearch.search.training_doubt import LABELLED
from edgesearch.stages.plan import Planner
from edgesearch.tasks.finetuner import Finetuner
from edgesearch.tasks.model import TaskModel
from edgesearch.words import duration_words, ms_words, size_words
from profilers import MeasureConfig

export = sys.modules["edgesearch.stages.export"]


def states(result):
    return {stage.name: stage.state for stage in result.stages}


def test_before_anything_is_done(empty):
    result = empty.api().plan()
    assert set(states(result).values()) == {"to do"}
    seconds = {stage.name: stage.seconds for stage in result.stages}
    assert all(seconds[name] > 0 for name in ("profile", "pretrain", "search", "export", "summary"))
    assert result.seconds == pytest.approx(sum(seconds.values()))
    smallest_ms, largest_ms = result.latency_ms
    assert 0 < smallest_ms < largest_ms
    assert result.latency_from == "measured just now"
    assert 0 < result.memory_bytes < result.machine_bytes
    assert 0 < result.disk_bytes < result.free_bytes
    assert result.table_bytes > 0
    assert "binds nothing" in result.verdict  # its budget is a second
    assert not empty.output_dir.exists()


def test_the_time_of_training_is_that_of_its_real_steps(empty, monkeypatch):
    made = []
    real = Trainer._train_step

    def counted(self, views, step):
        made.append(step)
        return real(self, views, step)

    monkeypatch.setattr(Trainer, "_train_step", counted)
    empty.api().plan()
    assert len(made) >= 2


def test_after_all_is_done(chain):
    result = chain.api().plan()
    found = states(result)
    assert set(found.values()) == {"finished"}
    assert "nothing is left to do" in chain.passes("plan").stdout
    assert result.memory_bytes is None
    assert "predicted from" in result.latency_from


def test_the_time_of_fine_tuning_is_that_of_real_steps(chain, monkeypatch):
    made = []
    real = Finetuner._step

    def counted(self, images, targets):
        made.append(len(images))
        return real(self, images, targets)

    monkeypatch.setattr(Finetuner, "_step", counted)
    task = {"task": "classification", "epochs": 50, "batch_size": 32}
    (once,) = (each for each in chain.api(finetune=task).plan().stages if each.name == "finetune")
    assert once.state == "to do"
    assert once.seconds > 0
    assert set(made) == {32}
    assert len(made) >= 4  # two in each end of the space
    assert not (chain.output_dir / "finetune").exists()


def test_the_time_of_an_export_is_that_of_a_whole_model(chain, monkeypatch):
    seen = []

    def watched(folder, network, *args, **options):
        seen.append((network, options["task"]))
        return build(folder, network, *args, **options)

    build = export.build_engines
    monkeypatch.setattr(export, "build_engines", watched)
    run = chain.api(finetune={"task": "classification"}, export={"tensorrt": None})
    pool = run.open_images()
    seconds = export.time_export(run, run.load_weights(), pool, run.space.smallest)
    ((model, task),) = seen
    assert isinstance(model, TaskModel) and seconds > 0
    assert len(task.images) == pool.contents.test  # the task's figure is computed on all of them


def test_few_images_are_not_counted_more_often_than_they_are_scored(empty):
    search = {"calibration_images": 10_000, "images": 64, "evaluations": 12}
    planner = Planner(empty.api(search=search))
    images = len(planner._pool.train)
    planner.__dict__["_image_s"] = dict.fromkeys((planner.space.smallest, planner.space.largest), 1)
    stage = planner._search(True)
    labelled = 2 * planner._knn_s(10_000, [planner.space.largest], LABELLED)
    assert stage.seconds - labelled == pytest.approx(12 * (images + 64) + 5 * 64, rel=0.2)


def test_a_block_that_cannot_run(empty, spoilt_cache):
    _, cache = spoilt_cache(empty.api().space)
    planner = Planner(empty.api(profile={"cache_dir": str(cache), "rounds": 5}))
    found, profile = planner._glance, planner._profile(True)
    assert sorted(found.latencies_ms, key=str) == [planner.space.smallest]
    for kind in (found.blocks, found.networks):
        (failed,) = (n for n, ms in enumerate(kind.fastest_ms) if ms is None)
        assert kind.rounds_s[failed] == 0
        assert kind.rounds(MeasureConfig(rounds=5)) == 5 * (1 - 1 / len(kind.rounds_s))
    assert 0 < profile.seconds < 60
    assert planner._latency_range() == (
        None,
        "the device cannot run the smallest or the largest network",
    )


def test_a_share_of_an_unknown_latency_is_told(empty):
    budgets = {"latency_ms": None, "latency_of_largest": [0.5, 0.75], "macs": 9}
    planner = Planner(empty.api(search={"budgets": budgets}), brief=True)
    assert planner._budgets(None)[0] == (
        "latency ≤ 0.5 × the largest network's",
        "latency ≤ 0.75 × the largest network's",
        "MACs ≤ 9",
    )


def test_no_block_can_run(empty, spoilt_cache):
    _, cache = spoilt_cache(empty.api().space, lambda space: block_keys(space))
    planner = Planner(empty.api(profile={"cache_dir": str(cache)}))
    assert planner._profile(True).seconds > 0  # to export and to load them
    assert planner._glance.latencies_ms == {}


def test_short_blocks_need_more_rounds_than_long_ones():
    measure = MeasureConfig(rounds=10, runs=2, least_ms=100)  # 100 rounds at most
    blocks = Glimpse((0.1, 50.0, None), (0.002, 0.5, 0.0), reload_s=0.001)
    assert blocks.rounds(measure) == pytest.approx((100 + 10 + 0) / 3)
    assert blocks.measuring_s(measure) == pytest.approx((100 * 0.003 + 10 * 0.501) / 3)
    assert blocks.round_s() == pytest.approx(0.502 / 3)


def test_a_most_of_rounds_does_not_bound_those_of_a_winner(empty):
    (export,) = (
        stage
        for stage in empty.api(profile={"max_rounds": 4}).plan().stages
        if stage.name == "export"
    )
    assert export.seconds > 0


def test_what_is_not_timed_says_why(empty, monkeypatch):
    def fails(*_):
        raise ExportError("operators that ONNX knows", "another one", "Choose another space.")

    monkeypatch.setattr(sys.modules["edgesearch.stages.plan"], "time_export", fails)
    planner = Planner(empty.api())
    stage = planner._export(True)
    assert stage.seconds is None
    said = "operators that ONNX knows; found: another one. Choose another space."
    assert stage.work.endswith(f"; not timed: {said}")


def test_what_is_not_measured_says_why_and_what_to_do(empty, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    no_cache = f"profile.cache_dir={tmp_path / 'file' / 'cache'}"
    said = "or profile.cache_dir=FOLDER for the blocks of `profile`."
    empty.refuses("profile", no_cache, says=("exported blocks and engines that can be", said))
    found = empty.json("plan", no_cache)["latency_from"]
    assert found.startswith("not measured: a folder for exported blocks and engines that can be ")
    assert found.endswith(said)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bare = ("device.name=gpu", "device.runtime=tensorrt")
    assert "pip install tensorrt" in empty.json("plan", *bare)["latency_from"]


def test_a_budget_out_of_reach_is_told_with_the_range(chain):
    done = chain.passes("plan", "search.budgets.latency_ms=0.000001")
    assert "out of reach: the smallest network takes" in done.stdout
    assert "warning: " in done.stdout


def test_what_a_run_refuses_plan_refuses(empty):
    empty.refuses("plan", "search.budgets.macs=1")
    assert not empty.output_dir.exists()


def test_images_that_cannot_be_read_are_not_counted(small_config, tmp_path):
    for name in "ab":
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(60):
            path = folder / f"{number:02}.jpg"
            Image.effect_noise((24, 24), 60).save(path)
            if number % 6 == 0:
                path.write_bytes(path.read_bytes()[:300])
    values = {
        **small_config,
        "output_dir": str(tmp_path / "out"),
        "data": {"source": "folder", "root": str(tmp_path / "photos")},
    }
    told = []
    run = edgesearch.Run(Config.model_validate(values), report=told.append)
    run.plan()
    last = [event.message for event in told if event.stage == "images"][-1]
    assert "left out: 20 damaged (first a/00.jpg)" in last
    assert run.contents.train + run.contents.test == 100
    assert f"{run.contents.train} train, {run.contents.test} test" in last


def test_as_json(chain):
    found = chain.json("plan")
    assert [stage["name"] for stage in found["stages"]][:2] == ["profile", "pretrain"]
    assert len(found["latency_ms"]) == 2


@pytest.mark.parametrize(
    ("ms", "words"), [(1e-6, "1e-06 ms"), (0.01234, "0.0123 ms"), (12345.6, "12,346 ms")]
)
def test_latencies(ms, words):
    assert ms_words(ms) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(5, "5 bytes"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB"), (5000 << 30, "5,000.0 GiB")],
)
def test_sizes(count, words):
    assert size_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (89, "89 s"), (100, "2 minutes"), (5400, "90 minutes"), (7200, "2.0 hours")],
)
def test_durations(seconds, words):
    assert duration_words(seconds) == words


def test_the_steps_that_a_run_times_change_no_result(finished, empty):
    empty.api().pretrain()
    file = "supernet/model.safetensors"
    assert (empty.output_dir / file).read_bytes() == (finished[0].output_dir / file).read_bytes()
