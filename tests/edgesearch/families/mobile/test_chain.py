"""Mobile networks through every command and every method of pre-training."""

import random

import onnx
import onnxruntime
import pytest
import torch

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
