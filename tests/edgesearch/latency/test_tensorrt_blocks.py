"""What is measured on devices with TensorRT: its parser takes all of it, and engines come out."""

import onnx
import pytest

from devices import DeviceSpec, TensorRTBuilder, read_engine_header, take_fingerprint
from edgesearch.families import load_space
from edgesearch.families.mobile.space import MobileSpace
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


def check_all(space, precision, networks, tmp_path):
    """Build engines of all blocks of a space and some whole networks, as they are measured."""
    device = DeviceSpec("rtx-pc", runtime="tensorrt-rtx", precision=precision)
    builder = TensorRTBuilder("tensorrt-rtx", CAPABILITIES[precision])
    with WorkloadFiles(space, device, FINGERPRINT, tmp_path / "onnx") as found:
        paths = list(found.blocks().values())
        assert len(paths) == sum(len(space.distinct_blocks(size)) for size in space.resolutions)
        weights = {
            tensor.data_type
            for path in paths
            for tensor in onnx.load(path).graph.initializer
            if len(tensor.dims) == 4
        }
        assert weights == {WEIGHTS[precision]}
        chosen = found.networks(correction_networks(space, 6)[-networks:], "network")
        for number, path in enumerate([*paths, *(workload.onnx_path for workload in chosen)]):
            builder.build(path, tmp_path / f"{number}.engine")
            header = read_engine_header(tmp_path / f"{number}.engine")
            assert set(header.compute_capabilities) == set(CAPABILITIES[precision])


@pytest.mark.parametrize("precision", CAPABILITIES)
def test_engines_of_all_blocks_of_a_small_space(precision, tmp_path):
    space = ResNetSpace("toy", "basic", "small", (8,), ((8,), (16,)), ((1,), (1,)), (16,))
    check_all(space, precision, 1, tmp_path)


@pytest.mark.parametrize("precision", CAPABILITIES)
def test_engines_of_all_blocks_of_a_small_mobile_space(precision, tmp_path):
    """With asymmetric padding, and depthwise convolutions before and behind the expansion."""
    widths, ones = ((8,), (16,)), ((1,), (1,))
    space = MobileSpace(
        *("toy", "relu6", (8,), (2, 1), widths, ones, ((5,), (3,)), ((2,), (2,)), (16,), (32,)),
        stage_start_kernels=((0,), (3,)),
        padding="tensorflow",
    )
    check_all(space, precision, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", CAPABILITIES)
def test_engines_of_all_blocks_of_resnet_tiny(precision, tmp_path):
    check_all(load_space("resnet_tiny"), precision, 2, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", CAPABILITIES)
def test_engines_of_all_blocks_of_mobile_v4(precision, tmp_path):
    check_all(load_space("mobile_v4", resolutions=[160]), precision, 1, tmp_path)
