"""Devices, precision, compilation, and memory that runs out."""

import json
import os
import random
import subprocess
import sys

import pytest
import torch

from edgesearch.data.open_images import open_images
from edgesearch.data.preprocess import Preprocess
from edgesearch.data.settings import DataSettings
from edgesearch.errors import TrainingError
from edgesearch.pretrain.hardware import (
    compile_ends,
    images_that_fit,
    out_of_memory,
)
from edgesearch.pretrain.loader import make_loader
from edgesearch.pretrain.moco_v2 import info_nce
from edgesearch.pretrain.passes import Passes
from edgesearch.pretrain.recipes import RECIPES
from edgesearch.pretrain.sandwich import sandwich_step
from edgesearch.pretrain.settings import PretrainSettings
from edgesearch.pretrain.trainer import Trainer
from edgesearch.processes import distributed
from edgesearch.training.optimizers import OPTIMIZERS, load_optimizer
from edgesearch.training.precision import autocast
from edgesearch.training.torch_device import torch_device

UNTAUGHT = [name for name, recipe in RECIPES.items() if not recipe.taught]
CPU = torch.device("cpu")
NO_GPU = not torch.cuda.is_available()
EACH = 100
"""Bytes of an image in a pass."""


class FakeMemory:
    """A device with so much free memory, which passes of a fake network fill."""

    def __init__(self, free):
        self.free, self.highest, self.tried = free, 0, []

    def reset(self):
        self.highest = 0

    def highest_bytes(self):
        return self.highest

    def free_bytes(self):
        return self.free

    def run(self, count):
        self.tried.append(count)
        if EACH * count > self.free:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.highest = EACH * count


class TestDevice:
    def test_cpu(self):
        assert torch_device("cpu") == CPU

    @pytest.mark.parametrize(("count", "found"), [(0, "cpu"), (1, "cuda:0")])
    def test_auto_is_a_gpu_if_there_is_one(self, monkeypatch, count, found):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        assert torch_device("auto") == torch.device(found)

    def test_without_a_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        expected = "for pretrain.device=cuda; found: none that torch .* can use"
        with pytest.raises(TrainingError, match=expected):
            torch_device("cuda")

    @pytest.mark.parametrize("device", ["auto", "cuda"])
    def test_fewer_gpus_than_processes(self, monkeypatch, device):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(distributed, "world_size", lambda: 2)
        monkeypatch.setenv("LOCAL_RANK", "1")
        expected = "a CUDA device for each process on this machine .*; found: 1 for at least 2"
        with pytest.raises(TrainingError, match=expected):
            torch_device(device)


class TestPrecision:
    @pytest.mark.parametrize("name", UNTAUGHT)
    def test_bf16_is_near_fp32_and_weights_stay_exact(self, new_method, two_views, pinhole, name):
        losses = []
        for precision in ("fp32", "bf16"):
            method, views = new_method(name), two_views()
            passes = Passes(method, 4, precision=precision)
            weights = [p for p in method.parameters() if p.requires_grad]
            seen = []
            method.query.supernet.backbone.conv1.register_forward_hook(
                lambda module, given, output, seen=seen: seen.append(output.dtype)
            )
            architectures = [pinhole.largest, pinhole.smallest]
            options = {"distill": 0.1, "passes": passes}
            optimizer = torch.optim.SGD(weights, 0.0)
            result = sandwich_step(method, views, architectures, optimizer, **options)
            assert set(seen) == {torch.float32 if precision == "fp32" else torch.bfloat16}
            assert all(weight.grad.dtype == torch.float32 for weight in weights)
            assert all(b.dtype != torch.bfloat16 for b in method.state_dict().values())
            losses.append(torch.tensor(result.losses))
        assert not torch.equal(*losses)
        torch.testing.assert_close(*losses, rtol=0.05, atol=0.02)

    @pytest.mark.parametrize("name", UNTAUGHT)
    def test_embeddings_losses_and_targets_are_float32(self, new_method, two_views, name):
        method, views = new_method(name), two_views(4)
        with autocast(CPU, "bf16"):
            targets = method.targets(views)
            loss, embeddings, _ = method.loss(views, targets)
        floating = [t for t in _tensors(targets) if t.is_floating_point()]
        assert {t.dtype for t in (loss, embeddings, *floating)} == {torch.float32}
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))

    def test_similarities_are_computed_in_float32(self, embeddings_of):
        queries, keys = embeddings_of(6, 32), embeddings_of(6, 32, seed=1)
        queue = embeddings_of(16, 32, seed=2).T
        expected = info_nce(queries, keys, queue, 0.05)
        with autocast(CPU, "bf16"):
            assert torch.equal(info_nce(queries, keys, queue, 0.05), expected)
            assert (queries @ queue).dtype == torch.bfloat16
            halved = info_nce(queries.bfloat16(), keys, queue, 0.05)
        assert halved.dtype == torch.float32


def _tensors(targets):
    if targets is None or isinstance(targets, torch.Tensor):
        return [] if targets is None else [targets]
    return [tensor for part in targets for tensor in _tensors(part)]


class TestOptimizers:
    def test_fused_sgd_is_torchs_to_the_bit(self):
        shape = (16, 8, 3, 3)
        start = torch.randn(shape).to(memory_format=torch.channels_last)
        weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
        options = {"momentum": 0.9, "weight_decay": 1e-4}
        optimizers = [
            OPTIMIZERS["sgd"]([weights[0]], 0.1, **options),
            torch.optim.SGD([weights[1]], 0.1, foreach=False, **options),
        ]
        assert optimizers[0].param_groups[0]["fused"]
        for _ in range(3):
            gradient = torch.randn(shape).to(memory_format=torch.channels_last)
            for weight, optimizer in zip(weights, optimizers, strict=True):
                weight.grad = gradient.clone()
                optimizer.step()
        assert torch.equal(*weights)

    def test_a_state_of_another_machine_does_not_say_how_to_compute(self):
        weight = torch.nn.Parameter(torch.ones(3))
        fused, plain = OPTIMIZERS["sgd"]([weight], 0.1), torch.optim.SGD([weight], 0.3)
        load_optimizer(fused, plain.state_dict())
        assert fused.param_groups[0]["fused"]
        assert fused.param_groups[0]["lr"] == 0.3


QUEUES = {"moco_v2": 64, "ressl": 72}
"""The first one holds whole batches of 16."""


class TestMemory:
    def test_what_fits_is_measured_with_few_images(self):
        memory = FakeMemory(free=20 * EACH)
        assert images_that_fit(memory.run, 64, memory) == (18, EACH)
        assert memory.tried == [8]

    def test_with_fewer_if_those_are_too_many(self):
        memory = FakeMemory(free=5 * EACH)
        assert images_that_fit(memory.run, 64, memory) == (4, EACH)
        assert memory.tried == [8, 4]

    def test_never_what_was_too_much(self):
        memory = FakeMemory(free=500 * EACH)
        assert images_that_fit(memory.run, 64, memory) == (63, EACH)

    def test_nothing_fits(self):
        memory = FakeMemory(free=EACH)
        assert images_that_fit(memory.run, 64, memory) is None

    @pytest.mark.parametrize(
        ("name", "free", "options", "remedy"),
        [
            ("moco_v2", 20, {}, "About 18 images .*: set pretrain.accumulation=4, or pretrain.bat"),
            (
                "moco_v2",
                20,
                {"group_size": 16},
                "accumulation=4, or pretrain.batch_size=16, or pretrain.precision",
            ),
            ("moco_v2", 20, {}, "pretrain.batch_size=16, or pretrain.precision"),
            (
                "ressl",
                20,
                {"group_size": 16},
                "batch_size=16 and pretrain.queue_size=64, or pretrain.precision",
            ),
            ("byol", 20, {"accumulation": 2}, "or pretrain.batch_size=36, or pretrain.precision"),
            ("moco_v2", 20, {"group_size": 32}, "18 images fit .*: set pretrain.precision=bf16"),
            (
                "simclr",
                20,
                {},
                r"each\): set pretrain.batch_size=18 or less, or pretrain.precision",
            ),
            ("byol", 20, {"precision": "bf16"}, r"pretrain.batch_size=18 or less\.$"),
            ("moco_v2", 1, {}, "Not even 2 images fit: choose a smaller space"),
        ],
    )
    def test_advice(self, new_method, two_views, monkeypatch, name, free, options, remedy):
        queue = {"queue_size": QUEUES[name]} if name in QUEUES else {}
        method, memory = new_method(name, **queue), FakeMemory(free * EACH)
        plain = method.loss

        def loss(views, targets):
            memory.run(len(views[0]))
            return plain(views, targets)

        monkeypatch.setattr(method, "loss", loss)
        passes = Passes(method, 64, **options)
        found = "CUDA out of memory. Tried\nto"
        error = out_of_memory(method, two_views(64), passes, memory, found)
        with pytest.raises(TrainingError, match=remedy):
            raise error
        count = 64 // passes.accumulation
        said = f"memory for passes of {count} images on the device; found: CUDA out of memory"
        assert said in str(error)
        assert all(weight.grad is None for weight in method.parameters())

    def test_of_the_supernet_itself(self, new_method, tmp_path, monkeypatch):
        method = new_method("moco_v2", queue_size=64)

        def full(device):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried\nto")

        monkeypatch.setattr(method, "to", full)
        expected = (
            "memory for the supernet and its .*; found: CUDA out of memory. Tried. Stop other"
        )
        with pytest.raises(TrainingError, match=expected):
            trainer(method, tmp_path)

    def test_training_ends_with_the_advice(self, new_method, tmp_path, monkeypatch):
        method, memory = new_method("moco_v2", queue_size=64), FakeMemory(10 * EACH)
        monkeypatch.setattr("edgesearch.pretrain.trainer.CudaMemory", lambda device: memory)
        plain = method.loss

        def loss(views, targets):
            memory.run(len(views[0]))
            return plain(views, targets)

        monkeypatch.setattr(method, "loss", loss)
        with pytest.raises(TrainingError, match="passes of 32 images .*pretrain.accumulation=4"):
            trainer(method, tmp_path).fit()


def trainer(method, folder, epochs=1, **options):
    settings = PretrainSettings(
        epochs=epochs,
        batch_size=32,
        lr=0.05,
        tensorboard=False,
        augmentation={"batched": True, "flip_probability": 0.0},
        **{"device": "cpu", **options},
    )
    images = open_images(DataSettings(source="digits"), 1).train.subset(range(64))
    views, rule = method.views(settings.augmentation), Preprocess(16, 1, (0.3,), (0.37,))
    loader = make_loader(images, views, rule, settings, 0)
    return Trainer(method, loader, settings, 0, folder, identity={})


class TestCompilation:
    def test_of_the_ends_alone_changes_no_result(self, new_method, two_views, pinhole):
        plain, compiled = (new_method("moco_v2").query for _ in range(2))
        compiled.supernet.compile_for((pinhole.largest, pinhole.smallest), backend="eager")
        for architecture in (pinhole.largest, pinhole.smallest, pinhole.sample(random.Random(0))):
            outputs = []
            for encoder in (plain, compiled):
                encoder.supernet.activate(architecture)
                output = encoder(encoder.resized(two_views()[0]))
                output.square().sum().backward()
                outputs.append(output)
            torch.testing.assert_close(*outputs)
        gradients = [[p.grad for p in encoder.parameters()] for encoder in (plain, compiled)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)

    @pytest.mark.slow
    def test_by_the_compiler(self, new_method, tmp_path):
        ends = []
        for compiled in (False, True):
            method = new_method("moco_v2", queue_size=64)
            weights = trainer(method, tmp_path / str(compiled), compile=compiled).fit()
            ends.append(weights.query["conv1.weight"])
        torch.testing.assert_close(*ends, rtol=1e-3, atol=2e-3)  # it computes in another order

    @pytest.mark.slow
    def test_without_a_compiler(self, tmp_path):
        # In a process of its own: torch remembers what it has found.
        code = (
            "import torch\n"
            "from edgesearch.errors import TrainingError\n"
            "from edgesearch.pretrain.hardware import compile_ends\n"
            "try: compile_ends(None, torch.device('cpu'))\n"
            "except TrainingError as error: print(error)\n"
        )
        environment = {**os.environ, "CXX": "/nowhere/c++", "PATH": "/nowhere"}
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert "a compiler that torch can use for cpu, for pretrain.compile=true" in done.stdout
        assert "or set pretrain.compile=false" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="needs an NVIDIA GPU that torch can use")
class TestOnAGpu:
    @pytest.mark.parametrize("name", UNTAUGHT)
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_trains_and_goes_on_on_the_cpu(self, new_method, tmp_path, name, precision):
        queue = {"queue_size": 64} if name in ("moco_v2", "densecl", "ressl") else {}
        on_gpu = {"device": "cuda", "precision": precision}
        weights = trainer(new_method(name, **queue), tmp_path, 1, **on_gpu).fit()
        assert all(tensor.device == CPU for tensor in weights.query.values())
        trainer(new_method(name, **queue), tmp_path, 2).fit()
        trainer(new_method(name, **queue), tmp_path, 3, **on_gpu).fit()
        assert torch.load(tmp_path / "state.pt")["progress"]["epoch"] == 3

    def test_first_step_is_that_of_the_cpu(self, new_method, tmp_path):
        losses = []
        for device in ("cpu", "cuda"):
            method = new_method("moco_v2", queue_size=64)
            trainer(method, tmp_path / device, device=device).fit()
            (line,) = (tmp_path / device / "metrics.jsonl").open()
            losses.append(json.loads(line)["loss_largest"])
        assert losses[0] == pytest.approx(losses[1], rel=1e-2)

    def test_compiled(self, new_method):
        compile_ends(new_method("moco_v2").to("cuda"), torch.device("cuda"))
