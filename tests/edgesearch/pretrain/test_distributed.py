"""Two real processes against one: the same steps, one writer, and one end for all."""

import os
import signal
import socket
import subprocess
import sys
import time

import cloudpickle  # comes with nni
import pytest
import torch

from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.errors import DataError, Interrupted, ProcessesError, ProcessFailed
from edgesearch.families.mobile.space import MobileSpace
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.pretrain.faithful import faithful_step
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.method import make_method
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.progress import Listener
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.pretrain.sandwich import sandwich_architectures, sandwich_step
from edgesearch.pretrain.settings import PretrainSettings
from edgesearch.pretrain.trainer import Trainer
from edgesearch.processes import distributed

SPACE = ResNetSpace(
    name="pinhole",
    block="basic",
    stem="small",
    stem_widths=(4, 8),
    stage_widths=((4, 8), (8, 16)),
    stage_depths=((1, 2), (1, 2)),
    resolutions=(12, 16),
    in_channels=1,
)
MOBILE = MobileSpace(
    name="mobile pinhole",
    activation="relu6",
    stem_widths=(4, 8),
    stage_strides=(1, 2),
    stage_widths=((8,), (8, 16)),
    stage_depths=((1, 2), (1, 2)),
    stage_start_kernels=((0, 3), (0,)),
    stage_kernels=((3,), (3, 5)),
    stage_expansions=((2,), (2, 3)),
    head_widths=(16,),
    resolutions=(12, 16),
    padding="tensorflow",
    norm_eps=1e-3,
    in_channels=1,
)
SPACES = {"resnet": SPACE, "mobile": MOBILE}
BATCH, STEPS = 16, 3
TWICE = ("byol", "densecl")
"""Methods with a network that sees both views of a pass, one after the other."""
UNTAUGHT = [name for name, recipe in RECIPES.items() if not recipe.taught]
IN_PARTS = [name for name in UNTAUGHT if name != "simclr"]
STARTED = "WORLD_SIZE"


def start(task, folder, count=2):
    """Start a task in processes that know of each other; each leaves its result in the folder."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = (
        "import sys, cloudpickle, torch; torch.set_num_threads(1); "
        "cloudpickle.loads(sys.stdin.buffer.read())()"
    )
    running = []
    for rank in range(count):
        names = {"RANK": rank, "LOCAL_RANK": rank, STARTED: count}
        names |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environment = {**os.environ, **{name: str(value) for name, value in names.items()}}

        def whole(rank=rank):
            try:
                with distributed.processes():
                    result = task()
            except Exception as error:
                result = error
            torch.save(result, folder / f"result{rank}.pt")

        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, env=environment
        )
        process.stdin.write(cloudpickle.dumps(whole))
        process.stdin.close()
        running.append(process)
    return running


def results_of(running, folder, timeout=900):
    """What each process leaves: a value or an error; None if it was killed."""
    ends = time.monotonic() + timeout
    for process in running:
        process.wait(max(1, ends - time.monotonic()))
    files = [folder / f"result{rank}.pt" for rank in range(len(running))]
    return [torch.load(f, weights_only=False) if f.exists() else None for f in files]


def in_two(task, folder, timeout=900):
    return results_of(start(task, folder), folder, timeout)


def fresh(name, seed=0, family="resnet"):
    heads = {"projector_hidden_dim": 10, "projector_dim": 6, "projector_bn": True}
    if "queue_size" in RECIPES[name].options:
        heads["queue_size"] = 2 * BATCH
    method = make_method(name, SPACES[family], seed, **heads).train()
    for parameter, weight in method.named_parameters():
        if parameter.endswith("bn2.weight"):
            torch.nn.init.ones_(weight)  # not 0 in any block
    return method


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(BATCH, 1, 16, 16, generator=generator) for _ in range(2)]


def steps(name, accumulation=1, group_size=4, faithful=False, family="resnet"):
    """Some steps of this process's share of the batches; the state and the figures at the end."""
    method = fresh(name, family=family)
    passes = Passes(method, BATCH, group_size=group_size, accumulation=accumulation)
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.05, momentum=0.9)
    figures = []
    rank, count = distributed.rank(), distributed.world_size()
    for step in range(STEPS):
        passes.step = step
        views = tuple(view.chunk(count)[rank] for view in batch(step))
        architectures = sandwich_architectures(method.space, 1, 0, step)
        if faithful:
            result = faithful_step(method, views, architectures, optimizer, passes=passes)
        else:
            options = {"distill": 0.5, "passes": passes}
            result = sandwich_step(method, views, architectures, optimizer, 0.1 * step, **options)
        assert result.finite
        figures += [*result.losses, result.spread]
    return {**method.state_dict(), "figures": torch.tensor(figures)}


def everything():
    """All that one pair of processes can try one after the other."""
    found = {name: steps(name) for name in UNTAUGHT}
    found |= {f"{name}, mobile": steps(name, family="mobile") for name in UNTAUGHT}
    found |= {f"{name} in parts": steps(name, 2) for name in IN_PARTS}
    found["one group a process"] = steps("moco_v2", 1, None)
    found["faithful"] = steps("moco_v2", faithful=True)
    rows = torch.full((2, 3), float(distributed.rank() + 1), requires_grad=True)
    gathered = distributed.gather_rows(rows)
    (gathered * torch.arange(12.0).view(4, 3) * (distributed.rank() + 1)).sum().backward()
    found["gathered"] = {"rows": gathered.detach(), "gradient": rows.grad}
    tensors = [torch.full((2, 2), 4.0 * distributed.rank()), torch.ones(3)]
    figures = distributed.average(tensors, [float(distributed.rank()), 2.0])
    found["average"] = {"tensors": tensors, "figures": figures}
    found["numbers"] = [
        distributed.numbers_of_all(distributed.rank() + 5, 1 << 40),
        distributed.of_first({"rank": distributed.rank()}),
        distributed.of_all({"rank": distributed.rank()}),
    ]
    method = fresh("moco_v2", seed=distributed.rank())
    distributed.share_weights(method)
    found["shared"] = method.state_dict()
    with distributed.alone():
        found["alone"] = [distributed.world_size(), distributed.rank()]
    begun = time.monotonic()
    if distributed.rank() == 0:
        time.sleep(1)
    distributed.wait_for_first()
    found["waited"] = time.monotonic() - begun
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    found = in_two(everything, tmp_path_factory.mktemp("both"), 300)
    assert all(isinstance(result, dict) for result in found), found
    return found


@pytest.fixture(scope="module")
def threads():
    """As many as the processes have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_close(found, expected, leave_out=()):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if not any(part in key for part in leave_out):
            torch.testing.assert_close(found[key], value, rtol=2e-3, atol=2e-4, msg=key)


@pytest.mark.usefixtures("threads")
class TestSameResult:
    @pytest.mark.parametrize("name", UNTAUGHT)
    @pytest.mark.parametrize("family", SPACES)
    def test_in_two_processes(self, both, name, family):
        expected = steps(name, family=family)
        for found in both:
            assert_close(found[name if family == "resnet" else f"{name}, {family}"], expected)
        other = steps(name, group_size=8, family=family)["figures"]
        assert not torch.allclose(other, expected["figures"], rtol=2e-3, atol=2e-4)

    @pytest.mark.parametrize("name", IN_PARTS)
    def test_in_two_passes_of_each_process(self, both, name):
        # Networks that run twice in a pass bring their statistics in another order: hardly a
        # difference, and none to the weights.
        twice = ("running_var", "running_mean") if name in TWICE else ()
        for found in both:
            assert_close(found[f"{name} in parts"], steps(name), twice)

    def test_with_one_group_for_each_process(self, both):
        assert_close(both[0]["one group a process"], steps("moco_v2", 1, BATCH // 2))

    def test_of_the_released_order_of_events(self, both):
        assert_close(both[1]["faithful"], steps("moco_v2", faithful=True))

    def test_bits_are_those_of_both_processes(self, both):
        first, second = both
        for name in (*UNTAUGHT, *(f"{name}, mobile" for name in UNTAUGHT)):
            assert all(torch.equal(second[name][key], first[name][key]) for key in first[name])


class TestExchange:
    def test_rows_in_order_and_gradients_of_all_losses(self, both):
        expected = torch.tensor([1.0, 1.0, 2.0, 2.0])
        weights = 3 * torch.arange(12.0).view(4, 3)
        for rank, found in enumerate(both):
            assert torch.equal(found["gathered"]["rows"][:, 0], expected)
            assert torch.equal(found["gathered"]["gradient"], weights.chunk(2)[rank])

    def test_means_in_place(self, both):
        for found in both:
            tensors, figures = found["average"].values()
            assert torch.equal(tensors[0], torch.full((2, 2), 2.0))
            assert torch.equal(tensors[1], torch.ones(3))
            assert figures == [0.5, 2.0]

    def test_numbers(self, both):
        expected = [[(5, 1 << 40), (6, 1 << 40)], {"rank": 0}, [{"rank": 0}, {"rank": 1}]]
        assert [found["numbers"] for found in both] == [expected] * 2

    def test_weights_of_the_first(self, both):
        expected = fresh("moco_v2").state_dict()
        assert all(torch.equal(both[1]["shared"][key], value) for key, value in expected.items())

    def test_alone_for_a_while(self, both):
        assert [found["alone"] for found in both] == [[1, 0]] * 2

    def test_the_others_wait_for_the_first(self, both):
        assert both[1]["waited"] > 0.5

    def test_one_process_does_nothing(self):
        with distributed.processes():
            rows = torch.ones(2, 3)
            assert distributed.gather_rows(rows) is rows
            assert distributed.average([rows], [0.5]) == [0.5]
            assert distributed.numbers_of_all(3, 4) == [(3, 4)]
            assert distributed.of_first("x") == "x"
            assert distributed.of_all("x") == ["x"]
            distributed.share_weights(torch.nn.Linear(1, 1))
            distributed.wait_for_first()


SETTINGS = PretrainSettings(
    epochs=2,
    batch_size=BATCH,
    queue_size=2 * BATCH,
    lr=0.0001,  # larger steps magnify rounding, which differs between processors and batch sizes
    bn_group_size=4,
    checkpoint_minutes=1e-9,  # a state after each step
    tensorboard=False,
    device="cpu",
    augmentation={"batched": True, "flip_probability": 0.0},
)


class Reports(Listener):
    """What the training says of its epochs."""

    def __init__(self):
        self.found = []

    def epoch(self, report):
        self.found.append((report.epoch, report.replaced_images))


class Hooked:
    """A loader with something to happen before a batch of (epoch, step)."""

    def __init__(self, loader, happenings):
        self.loader, self.happenings = loader, happenings
        self.steps_per_epoch, self.replaced, self.views_s = loader.steps_per_epoch, 1, 0

    def batches(self, epoch, first_step):
        for step, views in enumerate(self.loader.batches(epoch, first_step), first_step):
            yield self.happenings.get((epoch, step), lambda views: views)(views) or views


def train(folder, happenings=None, rank=1, family="resnet"):
    """Train in this process; what happens does so in one of the processes."""
    method, reports = fresh("moco_v2", family=family), Reports()
    images = open_images(DataSettings(source="digits"), 1).train.subset(range(3 * BATCH))
    views, rule = (SETTINGS.augmentation,) * 2, Preprocess(16, 1, (0.3,), (0.37,))
    loader = make_loader(images, views, rule, SETTINGS, 0)
    own = happenings if happenings and distributed.rank() == rank else {}
    options = {"identity": {"seed": 0}, "listener": reports}
    Trainer(method, Hooked(loader, own), SETTINGS, 0, folder, **options).fit()
    return reports.found


def state_of(folder):
    return torch.load(folder / "state.pt")


@pytest.fixture(scope="module", params=SPACES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, family):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, in_two(lambda: train(folder / "run", family=family), folder)


def assert_same_end(folder, undisturbed):
    state, expected = state_of(folder / "run"), state_of(undisturbed[0] / "run")
    assert state["progress"] == expected["progress"]
    assert all(torch.equal(state["method"][key], v) for key, v in expected["method"].items())


def assert_near(name, found, expected):
    told = f"{name}: {{}}".format
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-5, msg=told)


@pytest.mark.slow
class TestTraining:
    def test_the_first_alone_writes_and_reports(self, undisturbed):
        folder, reports = undisturbed
        assert reports == [[(1, 2), (2, 2)], []]
        assert len((folder / "run/metrics.jsonl").read_text().splitlines()) == 2
        assert (folder / "run/model.safetensors").exists()
        assert state_of(folder / "run")["processes"] == 2

    def test_ends_as_one_process_does(self, undisturbed, tmp_path, threads, family):
        train(tmp_path, family=family)
        for name, value in state_of(tmp_path)["method"].items():
            found = state_of(undisturbed[0] / "run")["method"][name]
            assert_near(name, found, value)

    def test_killed_and_run_again(self, undisturbed, tmp_path, family):
        def kill(_):
            os.kill(os.getpid(), signal.SIGKILL)

        def task(happenings=None):
            return lambda: train(tmp_path / "run", happenings, family=family)

        begun = time.monotonic()
        found, killed = in_two(task({(1, 1): kill}), tmp_path)
        assert killed is None
        assert time.monotonic() - begun < distributed.STEP_TIMEOUT.total_seconds()
        assert isinstance(found, ProcessesError)
        assert "all 2 processes of the run; found: one that has ended or does not" in str(found)
        progress = state_of(tmp_path / "run")["progress"]
        assert (progress["epoch"], progress["step"], progress["replaced"]) == (1, 1, 2)
        in_two(task(), tmp_path)
        assert_same_end(tmp_path, undisturbed)

    def test_a_signal_to_one_stops_all_at_the_same_step(self, tmp_path):
        def stop(_):
            signal.raise_signal(signal.SIGTERM)

        found = in_two(lambda: train(tmp_path / "run", {(1, 0): stop}), tmp_path)
        assert sorted(type(error).__name__ for error in found) == ["Interrupted", "ProcessStopped"]
        assert all("stopped by SIGTERM in epoch 2 of 2" in str(error) for error in found)
        assert state_of(tmp_path / "run")["progress"]["step"] == 1

    def test_an_error_of_one_ends_all(self, tmp_path):
        def fail(_):
            raise DataError("an image", "none", "Look.")

        begun = time.monotonic()
        first, second = in_two(lambda: train(tmp_path / "run", {(0, 1): fail}), tmp_path)
        assert time.monotonic() - begun < distributed.STEP_TIMEOUT.total_seconds()
        assert isinstance(first, ProcessFailed)
        assert isinstance(second, DataError)

    def test_a_loss_that_is_not_finite_in_one_stops_all(self, tmp_path):
        def spoil(views):
            return views[0] * float("nan"), views[1]

        found = in_two(lambda: train(tmp_path / "run", {(1, 1): spoil}), tmp_path)
        assert sorted(type(error).__name__ for error in found) == ["ProcessFailed", "TrainingError"]
        assert all("at step 4 (epoch 2)" in str(error) for error in found)

    def test_goes_on_with_another_number_of_processes(self, undisturbed, tmp_path, threads, family):
        def stop(_):
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(Interrupted):
            train(tmp_path, {(1, 0): stop}, rank=0, family=family)
        torch.save({**state_of(tmp_path), "processes": 2}, tmp_path / "state.pt")
        with pytest.warns(UserWarning, match="begun with 2 processes and continues with 1"):
            train(tmp_path, family=family)
        for name, value in state_of(undisturbed[0] / "run")["method"].items():
            found = state_of(tmp_path)["method"][name]
            assert_near(name, found, value)
