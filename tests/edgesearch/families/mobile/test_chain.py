"""Mobile networks through every command and every method of pre-training."""

import os
import random
import signal
import subprocess
import sys

import onnx
import onnxruntime
import pytest
import torch
import yaml
from safetensors.torch import load_file

import edgesearch
from edgesearch.config import Config
from edgesearch.errors import Interrupted
from edgesearch.families import space_from_dict
from edgesearch.pretrain.method import make_method
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.pretrain.sandwich import sandwich_step
from edgesearch.supernet.weights import extract

UNTAUGHT = [name for name, recipe in RECIPES.items() if not recipe.taught]
SPACE = {
    "name": "two mobile stages",
    "family": "mobile",
    "activation": "relu6",
    "padding": "tensorflow",
    "norm_eps": 1e-3,
    "in_channels": 1,
    "stem_widths": [4, 8],
    "stage_strides": [1, 2],
    "stage_widths": [[8], [8, 16]],
    "stage_depths": [[1, 2], [1]],
    "stage_start_kernels": [[0, 3], [0]],
    "stage_kernels": [[3], [3, 5]],
    "stage_expansions": [[2], [2]],
    "head_widths": [16],
    "resolutions": [16],
}


@pytest.fixture
def new_run(small_config, tmp_path):
    """A run of the small configuration with the mobile space."""

    def new_run(folder, report=None, **sections):
        values = {**small_config, "space": SPACE, "output_dir": str(tmp_path / folder)}
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section}
        run = edgesearch.Run(Config.model_validate(values))
        run.report = report or run.report
        return run

    return new_run


def test_from_profile_to_export(new_run):
    budgets = {"search": {"budgets": {"latency_of_largest": 0.9}}}
    run = new_run("run", rank={"subnets": 6, "bins": 2, "draws": 100}, **budgets)
    table = run.profile()
    assert (table.failed_blocks, table.size) == ((), 32)
    run.pretrain()
    (winner,) = run.search().winners.winners
    assert winner.architecture in run.space
    (folder,) = run.export().folders
    model = onnx.load(folder / "subnet.onnx")
    assert not [node for node in model.graph.node if node.op_type == "Pad"]
    subnet = edgesearch.load_subnet(folder)
    assert subnet.stage_names == ["stage1", "stage2"]
    session = onnxruntime.InferenceSession(folder / "subnet.onnx")
    images = torch.randn(1, 1, 16, 16)
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), subnet(images), atol=1e-5, rtol=1e-4)
    rows = run.evaluate(architectures=[str(run.space.smallest)]).rows
    assert {"winner w0", "named", "largest", "smallest"} <= {row.name for row in rows}
    assert len(run.rank().scores) > 10


def test_a_stopped_training_goes_on_where_it_was(new_run):
    def stop(event):
        if event.stage == "pretrain" and "epoch" in event.message and event.done == 1:
            raise Interrupted("stopped by the test")

    whole, stopped = new_run("whole"), new_run("stopped", report=stop)
    whole.pretrain()
    with pytest.raises(Interrupted):
        stopped.pretrain()
    stopped.report = lambda event: None
    stopped.pretrain()
    weights = [run.load_weights().query for run in (whole, stopped)]
    assert all(torch.equal(weights[1][name], tensor) for name, tensor in weights[0].items())


@pytest.fixture
def command(small_config, tmp_path):
    """The command that trains into a folder, and the file of its weights."""
    path = tmp_path / "mobile.yaml"
    path.write_text(yaml.safe_dump({**small_config, "space": SPACE, "output_dir": "unused"}))

    def command(folder, *overrides):
        out = tmp_path / folder
        arguments = ["pretrain", str(path), f"output_dir={out}", *overrides]
        return ["-m", "edgesearch", *arguments], out / "supernet/model.safetensors"

    return command


@pytest.mark.slow
def test_a_killed_training_comes_to_the_same_weights(command, wait_for):
    whole, weights = command("whole")
    subprocess.run([sys.executable, *whole], check=True, timeout=600)
    killed, own = command("killed")
    process = subprocess.Popen([sys.executable, *killed], stderr=subprocess.PIPE, text=True)
    wait_for((own.parent / "state.pt").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not own.exists()
    subprocess.run([sys.executable, *killed], check=True, timeout=600)
    assert own.read_bytes() == weights.read_bytes()


@pytest.mark.slow
def test_two_processes_train_what_one_does(command):
    grouped = ("pretrain.epochs=1", "pretrain.bn_group_size=32", "pretrain.lr=0.003")
    alone, weights = command("alone", *grouped)
    subprocess.run([sys.executable, *alone], check=True, timeout=600)
    both, own = command("both", *grouped)
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *torchrun, *both], check=True, timeout=600, env=environment)
    expected, found = load_file(weights), load_file(own)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", UNTAUGHT)
def test_every_method_trains_what_is_extracted(name):
    space = space_from_dict(SPACE)
    small = {"projector_hidden_dim": 10, "projector_dim": 6, "projector_bn": True}
    small |= {"predictor_hidden_dim": 7, "queue_size": 16}
    options = {key: value for key, value in small.items() if key in RECIPES[name].options}
    method = make_method(name, space, **options).train()
    generator = torch.Generator().manual_seed(0)
    views = tuple(torch.randn(8, 1, 16, 16, generator=generator) for _ in range(2))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], 0.05)
    before = {key: tensor.clone() for key, tensor in method.query.state_dict().items()}
    sampled = space.sample(random.Random(0))
    sandwich_step(method, views, [space.largest, space.smallest, sampled], optimizer)
    after = method.query.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    kernels = [key for key, tensor in before.items() if tensor.dim() == 4]
    assert all(not torch.equal(after[key], before[key]) for key in kernels)
    supernet = method.query.supernet.eval()
    for architecture in (space.largest, space.smallest, sampled):
        supernet.activate(architecture)
        network = extract(space, supernet.backbone.state_dict(), architecture)
        with torch.no_grad():
            difference = network(views[0]) - supernet(views[0])
        assert difference.abs().max() <= 1e-5
