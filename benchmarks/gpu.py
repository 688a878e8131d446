"""Everything that waits for an NVIDIA GPU, each step on its own, as text in one folder.

Each step is a process with a limit of its own, so that one that fails or hangs does not stop the
rest: together at most 20 minutes. A step whose packages are missing says so and is left out. The
steps that compare two things do so in turn, in one run, and print the ratio.

Usage: python benchmarks/gpu.py FOLDER [--device cuda|cpu] [--steps NAME,NAME] (a CPU in the GPU's
place shows that the script runs: it takes smaller networks and leaves out what a CPU has not). Run
nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
REPEATS = 12
WARM_UP = 4


@dataclass(frozen=True)
class Scale:
    """What is run on a device: much on a GPU, little on a CPU.

    Attributes:
        space: Name of the search space.
        resolution: Of the images, in pixels.
        batch: Images in a step.
        images: Images of the training that is timed as a whole.
    """

    space: str
    resolution: int
    batch: int
    images: int


SCALES = {
    "cuda": Scale("resnet50to101", 224, 64, 2048),
    "cpu": Scale("resnet_small", 32, 16, 64),
}


@dataclass(frozen=True)
class Step:
    """A step of the script.

    Attributes:
        work: Prints its figures; or a command of the project's own, given a device.
        limit_s: Longest time.
        needs: Modules without which it is left out, and what pip installs them by.
        gpu_only: It shows nothing on a CPU.
    """

    work: Callable[[str], None] | Callable[[str], list[str]]
    limit_s: int
    needs: dict[str, str]
    gpu_only: bool = False


def environment(device: str) -> None:
    """Versions, and what nvidia-smi says."""
    import torch

    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, device {device}")
    for name in ("torchvision", "onnxruntime", "tensorrt", "pycuda", "cuda", "pydantic", "nni"):
        print(f"{name}: {'there' if importlib.util.find_spec(name) else 'missing'}")
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        print(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
        subprocess.run(["nvidia-smi"], check=False)


def gpu_tests(device: str) -> list[str]:
    """The tests that need a GPU."""
    alone = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
    return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *alone]


def sandwich(device: str) -> list[str]:
    """The supernet against static networks."""
    scale = SCALES[device]
    script = str(ROOT / "benchmarks/sandwich_step.py")
    return [
        *(sys.executable, script, scale.space, str(scale.resolution)),
        *(str(scale.batch), "10", device, "eager"),
    ]


def compiled(device: str) -> list[str]:
    """The same, both sides compiled."""
    return [*sandwich(device)[:-1], "compiled"]


def flop_rate(device: str) -> None:
    """Training of the supernet's largest subnet against torchvision's ResNet-50, by FLOPs."""
    import torch
    import torchvision

    from edgesearch.families import load_space
    from edgesearch.supernet.supernet import Supernet

    scale = SCALES[device]
    space = load_space(scale.space, resolutions=[scale.resolution])
    supernet = Supernet(space).train()
    supernet.activate(space.largest)
    static = torchvision.models.resnet50(weights=None).train()
    macs = {"supernet, largest": space.macs(space.largest), "torchvision resnet50": 0}
    macs["torchvision resnet50"] = counted_macs(static, scale.resolution)
    networks = {"supernet, largest": supernet, "torchvision resnet50": static}
    images = torch.randn(scale.batch, space.in_channels, scale.resolution, scale.resolution)
    images = images.to(device, memory_format=torch.channels_last)
    for network in networks.values():
        network.to(device).to(memory_format=torch.channels_last)
    for precision in ("fp32", "bf16"):

        def step(name: str, low: bool = precision == "bf16") -> None:
            with torch.autocast(device, torch.bfloat16, enabled=low):
                loss = networks[name](images).float().square().mean()
            loss.backward()

        seconds = in_turn({name: lambda name=name: step(name) for name in networks}, device)
        rates = {
            name: 3 * 2 * macs[name] * scale.batch / statistics.median(taken)
            for name, taken in seconds.items()
        }
        for name, rate in rates.items():
            took_ms = 1e3 * statistics.median(seconds[name])
            speed = 1e3 * scale.batch / took_ms
            print(
                f"{precision} {name}: {took_ms:.1f} ms, {speed:,.0f} images/s, "
                f"{rate / 1e12:.2f} TFLOP/s (forward and backward, {macs[name] / 1e9:.2f} G MACs)"
            )
        ours, theirs = rates.values()
        print(f"{precision}: FLOP rate of the supernet by that of torchvision: {ours / theirs:.3f}")


def counted_macs(network: object, resolution: int) -> float:
    """Multiply-accumulates of a network for one image, as torch counts them."""
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    assert isinstance(network, nn.Module)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(2, 3, resolution, resolution))
    return counter.get_total_flops() / 4


def bf16(device: str) -> None:
    """A whole sandwich step of MoCo v2 in bf16 against float32."""
    from edgesearch.pretrain.passes import Passes

    step = moco_step(device)
    seconds = in_turn(
        {
            precision: lambda precision=precision: step(lambda method, batch: Passes(
                method, batch, precision=precision
            ))
            for precision in ("fp32", "bf16")
        },
        device,
    )  # fmt: skip
    tell_ratio("bf16", "fp32", seconds["bf16"], seconds["fp32"])


def nccl(device: str) -> None:
    """A sandwich step whose gradients go through NCCL (on a CPU Gloo) in one process."""
    import torch
    import torch.distributed as dist

    backend = "nccl" if device == "cuda" else "gloo"
    address = f"tcp://127.0.0.1:{free_port()}"
    dist.init_process_group(backend, init_method=address, rank=0, world_size=1)
    tensors = [torch.randn(2**20, device=device) for _ in range(32)]

    def exchange() -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)

    step = moco_step(device)
    seconds = in_turn({"exchange": exchange, "step": lambda: step(None)}, device)
    tell_ratio(f"{backend}: exchange of 128 MiB", "a sandwich step", *seconds.values())
    dist.destroy_process_group()


def views(device: str) -> None:
    """Batched views on the device against those on the CPU."""
    import torch

    from edgesearch.data.preprocess import Preprocess
    from edgesearch.pretrain.batched_views import BatchedViews
    from edgesearch.pretrain.settings import AugmentationSettings

    scale = SCALES[device]
    preprocess = Preprocess(scale.resolution, 3, (0.5,) * 3, (0.25,) * 3)
    make = BatchedViews([AugmentationSettings()] * 2, preprocess, seed=0)
    size = (scale.batch, 3, scale.resolution, scale.resolution)
    images = torch.randint(0, 256, size, dtype=torch.uint8)
    indices = torch.arange(scale.batch)
    there = images.to(device)
    seconds = in_turn(
        {
            f"views of images that lie on {device}": lambda: make(there, indices, 0),
            "views on the processor": lambda: make(images, indices, 0),
        },
        device,
    )
    for name, taken in seconds.items():
        print(f"{name}: {2 * scale.batch / statistics.median(taken):,.0f} views/s")
    tell_ratio(*seconds, *seconds.values())


def training(device: str) -> None:
    """Images a second of a training from JPEG files, and the share of waiting for data."""
    import numpy as np
    from PIL import Image

    scale = SCALES[device]
    folder = Path.cwd() / "images"
    rng = np.random.default_rng(0)
    for number in range(scale.images):
        path = folder / f"class{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC)
        picture.save(path)
    for precision in ("fp32", "bf16"):
        output = Path.cwd() / precision
        overrides = [
            f"output_dir={output}",
            f"data.root={folder}",
            f"space.name={scale.space}",
            f"space.resolutions=[{scale.resolution}]",
            f"pretrain.device={device}",
            f"pretrain.precision={precision}",
            f"pretrain.batch_size={scale.batch}",
            f"pretrain.queue_size={scale.batch * 2}",
            "pretrain.epochs=2",
            "pretrain.knn_every_epochs=0",
            "pretrain.bn_group_size=",
            f"pretrain.workers={min(16, os.cpu_count() or 1)}",
        ]
        config = ROOT / "configs/imagenet_resnet50to101.yaml"
        edgesearch("pretrain", str(config), *overrides)


def cuda_table(device: str) -> None:
    """A latency table through onnxruntime, on a GPU by its CUDA provider."""
    import onnxruntime

    provider = []
    if device == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            print("left out: this onnxruntime has no CUDA provider (pip install onnxruntime-gpu)")
            return
        provider = ["device.provider=cuda"]
    where = [f"output_dir={Path.cwd() / 'out'}", *provider]
    edgesearch("profile", "quickstart", *where)
    edgesearch("validate", "quickstart", *where)


def tensorrt_table(device: str) -> None:
    """A latency table through TensorRT."""
    where = [f"output_dir={Path.cwd() / 'out'}", "device.name=local-gpu"]
    edgesearch("profile", "quickstart", *where)
    edgesearch("validate", "quickstart", *where)


def engine(device: str) -> None:
    """The whole chain up to engines, then the winner's engine timed on its own."""
    output = Path.cwd() / "out"
    on_gpu = importlib.util.find_spec("tensorrt") is not None and device == "cuda"
    name = "local-gpu" if on_gpu else "local-cpu"
    where = [f"output_dir={output}", f"device.name={name}", f"pretrain.device={device}"]
    edgesearch("run", "quickstart", *where, "pretrain.epochs=5")
    manifest = json.loads((output / "engines/w0/manifest.json").read_text("utf-8"))
    file = output / "engines/w0" / manifest["measured_file"]
    edgesearch("bench", str(file), "--device", name)


def edgesearch(*arguments: str) -> None:
    """Run a command of the command line; its failure is that of the step."""
    command = [sys.executable, "-m", "edgesearch", *arguments]
    print(f"$ edgesearch {' '.join(arguments)}", flush=True)
    subprocess.run(command, check=True)


def moco_step(device: str) -> Callable[..., None]:
    """A sandwich step of MoCo v2 on random views, given what makes its passes (or None)."""
    import torch

    from edgesearch.families import load_space
    from edgesearch.pretrain.method import make_method
    from edgesearch.pretrain.sandwich import sandwich_architectures, sandwich_step

    scale = SCALES[device]
    space = load_space(scale.space, resolutions=[scale.resolution])
    method = make_method("moco_v2", space, 0, queue_size=scale.batch * 4)
    method.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(method.query.parameters(), 1e-3)
    size = (scale.batch, space.in_channels, scale.resolution, scale.resolution)
    pair = tuple(torch.randn(size).to(device, memory_format=torch.channels_last) for _ in range(2))
    architectures = sandwich_architectures(space, 1, 0, 0)

    def step(make_passes: Callable[..., object] | None) -> None:
        passes = make_passes and make_passes(method, scale.batch)
        sandwich_step(method, pair, architectures, optimizer, passes=passes)

    return step


def in_turn(works: dict[str, Callable[[], object]], device: str) -> dict[str, list[float]]:
    """Seconds of several things done in turn, after a warm-up."""
    import torch

    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(WARM_UP + REPEATS):
        for name, work in works.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def tell_ratio(name: str, other: str, ours_s: list[float], theirs_s: list[float]) -> None:
    """Print both medians and the median of the ratios."""
    ratio = statistics.median(a / b for a, b in zip(ours_s, theirs_s, strict=True))
    ours_ms, theirs_ms = (1e3 * statistics.median(each) for each in (ours_s, theirs_s))
    print(
        f"{name} {ours_ms:.1f} ms, {other} {theirs_ms:.1f} ms, ratio {ratio:.3f} "
        f"(median of {len(ours_s)})"
    )


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


TORCHVISION = {"torchvision": "torchvision"}
CHAIN = {"pydantic": "pydantic", "nni": "nni==3.0", "onnxruntime": "onnxruntime"}

STEPS: dict[str, Step] = {
    "environment": Step(environment, 20, {}),
    "flop_rate": Step(flop_rate, 110, TORCHVISION),
    "sandwich": Step(sandwich, 110, {}),
    "compiled": Step(compiled, 150, {}, gpu_only=True),
    "bf16": Step(bf16, 90, {}),
    "nccl": Step(nccl, 60, {}),
    "views": Step(views, 30, {"pydantic": "pydantic"}),
    "training": Step(training, 140, {"pydantic": "pydantic", **TORCHVISION}),
    "cuda_table": Step(cuda_table, 110, CHAIN),
    "tensorrt_table": Step(tensorrt_table, 110, {**CHAIN, "tensorrt": "tensorrt"}, gpu_only=True),
    "engine": Step(engine, 150, CHAIN),
    "gpu_tests": Step(gpu_tests, 120, {"pytest": "pytest"}, gpu_only=True),
}
"""Together at most 20 minutes on a GPU: a test adds up the limits."""


def run_step(name: str, folder: Path, device: str) -> str:
    """Run a step as a process of its own; its output is a file in the folder.

    Returns:
        What became of it, in a few words.
    """
    step = STEPS[name]
    if step.gpu_only and device != "cuda":
        return "left out: needs a GPU"
    missing = [
        pip for module, pip in step.needs.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        return f"left out: pip install {' '.join(missing)}"
    work = folder / f"{name}.files"
    work.mkdir(parents=True, exist_ok=True)
    script = [sys.executable, str(Path(__file__).resolve()), str(folder.resolve())]
    command = [*script, "--device", device, "--only", name]
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    started = time.monotonic()
    with (folder / f"{name}.txt").open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=work, env=paths, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(step.limit_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
            return f"stopped after {step.limit_s} s"
    took = time.monotonic() - started
    return f"{'done' if code == 0 else f'failed with {code}'} in {took:.0f} s"


def only(name: str, device: str) -> None:
    """Do the work of a step in this process."""
    done = STEPS[name].work(device)
    if done is not None:
        at_root = name == "gpu_tests"
        raise SystemExit(
            subprocess.run(done, check=False, cwd=ROOT if at_root else None).returncode
        )


def chosen_steps(names: str) -> Iterator[str]:
    """The steps that are to be run, in their order."""
    wanted = names.split(",") if names else list(STEPS)
    unknown = [name for name in wanted if name not in STEPS]
    if unknown:
        raise SystemExit(f"steps are {', '.join(STEPS)}; found: {unknown[0]}")
    yield from (name for name in STEPS if name in wanted)


def main() -> None:
    """Run the steps, and print what became of each with its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="gets a text file for each step, and summary.txt")
    parser.add_argument("--device", choices=tuple(SCALES), default="cuda")
    parser.add_argument("--steps", default="", help=f"of {', '.join(STEPS)}")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        only(given.only, given.device)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in chosen_steps(given.steps):
        lines.append(f"{name:15} {run_step(name, given.folder, given.device)}")
        print(lines[-1], flush=True)
        (given.folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
