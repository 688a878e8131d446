"""What is measured on devices with TensorRT: its parser takes all of it, and engines come out."""

import time

import onnx
import pytest

from devices import DeviceSpec, TensorRTBuilder, read_engine_header, take_fingerprint
from edgesearch.families import load_space
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.latency.workloads import WorkloadFiles, correction_networks

FINGERPRINT = take_fingerprint("tensorrt-rtx", "1")
# SM75 has no matrix products in single precision, and those of int8 networks stay in it.
CAPABILITIES = {
    "fp32": ("SM86", "SM89", "SM120"),
    "fp16": ("SM75", "SM86", "SM89", "SM120"),
    "int8": ("SM86", "SM89", "SM120"),
}
WEIGHTS = {
    "fp32": onnx.TensorProto.FLOAT,
    "fp16": onnx.TensorProto.FLOAT16,
    "int8": onnx.TensorProto.INT8,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Exported blocks: all precisions are made from the same."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def build_all(tmp_path, cache):
    """Builds engines of all blocks of a space and some whole networks, as they are measured."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")

    def build(space, precision, networks):
        device = DeviceSpec("rtx-pc", runtime="tensorrt-rtx", precision=precision)
        builder = TensorRTBuilder("tensorrt-rtx", CAPABILITIES[precision])
        folder = tmp_path / precision
        folder.mkdir()
        files = WorkloadFiles(space, device, FINGERPRINT, folder / "onnx", cache)
        with files as found:
            paths = dict(found.blocks())
            chosen = found.networks(correction_networks(space, 6)[-networks:], "network")
            paths.update({workload.key: workload.onnx_path for workload in chosen})
            weights = {
                tensor.data_type
                for path in found.blocks().values()
                for tensor in onnx.load(path).graph.initializer
                if len(tensor.dims) == 4
            }
            engines = {}
            begin = time.perf_counter()
            for number, (key, path) in enumerate(paths.items()):
                engines[key] = folder / f"{number}.engine"
                builder.build(path, engines[key])
            return engines, weights, time.perf_counter() - begin

    return build


def check(engines, weights, space, precision, networks):
    """Every block and network has an engine, in the precision, for what it was built for."""
    blocks = sum(len(space.distinct_blocks(size)) for size in space.resolutions)
    assert len(engines) == blocks + networks
    for engine in engines.values():
        assert set(read_engine_header(engine).compute_capabilities) == set(CAPABILITIES[precision])
    assert weights == {WEIGHTS[precision]}


@pytest.mark.parametrize("precision", CAPABILITIES)
def test_engines_of_all_blocks_of_a_small_space(precision, build_all):
    space = ResNetSpace("toy", "basic", "small", (8,), ((8,), (16,)), ((1,), (1,)), (16,))
    engines, weights, _ = build_all(space, precision, networks=1)
    check(engines, weights, space, precision, networks=1)


@pytest.mark.slow
@pytest.mark.parametrize("precision", CAPABILITIES)
def test_engines_of_all_blocks_of_resnet_tiny(precision, build_all, capsys):
    space = load_space("resnet_tiny")
    engines, weights, seconds = build_all(space, precision, networks=2)
    check(engines, weights, space, precision, networks=2)
    sizes = [engine.stat().st_size for engine in engines.values()]
    with capsys.disabled():
        print(
            f"\nresnet_tiny, {precision}, {', '.join(CAPABILITIES[precision])}: engines of "
            f"{len(engines) - 2} blocks and 2 networks, {seconds:.0f} s, {sum(sizes) / 1e6:.1f} MB "
            f"({min(sizes) / 1e6:.2f} to {max(sizes) / 1e6:.2f} MB each)"
        )
