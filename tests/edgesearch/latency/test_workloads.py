"""Files of blocks that are exported once, and of networks that do not stay."""

import os
import shutil
from collections import Counter
from dataclasses import replace

import onnx
import pytest
import torch

from devices import DeviceSpec, take_fingerprint
from devices.errors import FileError
from edgesearch.export.deployable import write_in_format
from edgesearch.export.engines import ONNX_FILE
from edgesearch.families.resnet.space import ResNetSpace
from edgesearch.formats.onnx_export import export_network
from edgesearch.formats.onnx_files import is_whole_model
from edgesearch.latency.table import WITH_HEAD, about_network
from edgesearch.latency.workloads import WorkloadFiles, correction_networks, random_model
from edgesearch.tasks.head_costs import TaskHead

FINGERPRINT = take_fingerprint("onnxruntime", "1")


@pytest.fixture(scope="session")
def space():
    return ResNetSpace(
        "toy", "basic", "small", (4, 8), ((4, 8), (8, 16)), ((1,), (1, 2)), (16, 24), in_channels=1
    )


def test_a_cache_that_cannot_be_written_is_refused_at_once(space, tmp_path):
    (tmp_path / "onnx").touch()  # what root may not write either
    with pytest.raises(FileError, match=r"onnx.*profile\.cache_dir="):
        WorkloadFiles(space, DeviceSpec("local-cpu"), FINGERPRINT, tmp_path / "n", tmp_path)


@pytest.fixture(scope="session")
def exported(space, tmp_path_factory):
    """A cache with the blocks of the space in fp32 and int8, exported once."""
    folder = tmp_path_factory.mktemp("exported")
    for precision in ("fp32", "int8"):
        device = DeviceSpec("local-cpu", precision=precision)
        with WorkloadFiles(space, device, FINGERPRINT, folder / "networks", folder / "cache") as it:
            it.blocks()
    return folder / "cache"


@pytest.fixture
def files(space, exported, tmp_path):
    """Files of a device, in a copy of the exported cache; told messages go to `told`."""
    shutil.copytree(exported, tmp_path / "cache")

    def make(told, precision="fp32", batch=1, of=space):
        device = DeviceSpec("local-cpu", precision=precision, batch=batch)
        folder = tmp_path / "networks"
        return WorkloadFiles(
            of, device, FINGERPRINT, folder, tmp_path / "cache", lambda event: told.append(event)
        )

    return make


def test_a_second_device_exports_nothing(files, space, tmp_path):
    shutil.rmtree(tmp_path / "cache")
    told = []
    with files(told) as first:
        paths = first.blocks()
    assert {block.key for size in (16, 24) for block in space.distinct_blocks(size)} == set(paths)
    assert any("16 px exported" in event.message for event in told)
    assert any("24 px exported" in event.message for event in told)
    told.clear()
    with files(told) as second:
        assert second.blocks() == paths
    assert told == []
    # Another space with the same blocks, too.
    part = replace(space, stem_widths=(4,), stage_widths=((8,), (16,)), stage_depths=((1,),) * 2)
    with files(told, of=part) as third:
        assert set(third.blocks().items()) <= set(paths.items())
    assert told == []


def test_eight_bits_come_from_the_cached_blocks(files):
    told = []
    with files(told) as plain:
        exported = plain.blocks()
    for path in next(iter(exported.values())).parent.glob("*8-*.onnx"):
        path.unlink()
    told.clear()
    with files(told, "int8") as quantized:
        converted = quantized.blocks()
    assert set(converted) == set(exported)
    assert not set(converted.values()) & set(exported.values())
    assert all("converted to " in event.message for event in told)


def test_batches_have_files_of_their_own(files, space):
    small = replace(space, stage_widths=((4,),), stage_depths=((1,),), resolutions=(16,))
    with files([], of=small) as one, files([], batch=2, of=small) as two:
        stems = [next(p for k, p in f.blocks().items() if "stem" in k) for f in (one, two)]
    sizes = [
        onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value for path in stems
    ]
    assert sizes == [1, 2]


def test_a_file_that_is_gone_is_exported_again(files):
    with files([]) as first:
        gone = next(iter(first.blocks().values()))
    gone.unlink()
    told = []
    with files(told) as second:
        second.blocks()
    assert gone.exists()
    assert len(told) == 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("left", [0, 500, -1])
def test_a_damaged_file_is_written_again(files, space, precision, left):
    with files([], precision) as first:
        whole = first.blocks()
    damaged = next(path for key, path in whole.items() if key.startswith("head"))
    damaged.write_bytes(damaged.read_bytes()[:left])
    told = []
    with files(told, precision) as second:
        assert second.blocks() == whole
        second.networks([space.largest], "network")
    assert is_whole_model(damaged)
    cache = damaged.parent
    assert told[0].message == f"1 damaged block files in {cache} are exported again"
    assert told[0].done is None
    told.clear()
    with files(told, precision) as third:
        third.blocks()
    assert told == []


def test_files_are_on_the_disk_before_they_get_their_names(files, space, monkeypatch):
    small = replace(space, stage_widths=((8,),), stage_depths=((1,),), resolutions=(24,))
    done = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), rename(*names)))
    with files([], batch=2, of=small) as found:
        count = len(found.blocks())
    assert done == ["fsync", "replace"] * count


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_networks_are_there_until_the_end(files, space, precision):
    chosen = correction_networks(space, 6)
    with files([], precision) as found:
        workloads = found.networks(chosen, "network")
        assert [w.about for w in workloads] == [about_network(space, a) for a in chosen]
        assert all(w.onnx_path.exists() for w in workloads)
    assert not workloads[0].onnx_path.parent.exists()


@pytest.mark.parametrize(
    ("precision", "provider"), [("fp32", None), ("int8", None), ("fp16", "cuda")]
)
@pytest.mark.parametrize(
    ("task", "head"),
    [("detection", "ssdlite"), ("segmentation", "lraspp"), ("segmentation", "fcn")],
)
def test_whole_models_are_what_an_export_would_ship(
    space, tmp_path, precision, provider, task, head
):
    device = DeviceSpec("local-cpu", precision=precision, provider=provider)
    of, architecture = TaskHead(task, head, 2), space.largest
    model = random_model(space, architecture, of)
    shape = (1, 1, architecture.resolution, architecture.resolution)
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    names = model.output_names
    export_network(model, shipped / ONNX_FILE, input_shape=shape, output_names=names)
    with WorkloadFiles(space, device, FINGERPRINT, tmp_path / "networks") as made:
        images = torch.randn(8, *shape[1:], generator=torch.Generator().manual_seed(0))
        path = write_in_format(shipped, made.number_format, images, 1)
        (workload,) = made.with_head([architecture], WITH_HEAD, of)
        found, wanted = onnx.load(workload.onnx_path), onnx.load(path)
    assert [each.name for each in found.graph.output] == names
    assert _operations(found) == _operations(wanted)
    assert workload.about == about_network(space, architecture, of)


def _operations(model):
    return Counter(node.op_type for node in model.graph.node)
