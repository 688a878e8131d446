"""A precision and a runtime that nobody thought of: two records, and nothing else is changed."""

import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from devices import DeviceSpec, OnnxRuntime
from devices.errors import UserError
from devices.runtimes.known_runtimes import RUNTIMES
from devices.runtimes.record import RuntimeRecord
from edgesearch.config import load_config
from edgesearch.errors import ExportError
from edgesearch.export.deployable import Deployable, write_in_format, write_winner
from edgesearch.export.exportable import check_batch
from edgesearch.export.kit import KIT
from edgesearch.export.manifest import read_manifest
from edgesearch.formats.onnx_export import export_network
from edgesearch.formats.precision import Precision, Tolerance
from edgesearch.formats.precisions import PRECISIONS
from edgesearch.latency.workloads import WorkloadFiles
from edgesearch.search.winners import Winner
from edgesearch.supernet.subnet import Subnet
from profilers import MeasureConfig, Workload, build_table, open_meter

# ---- The precision: weights are rounded to the upper half of their bits. ----


def to_bf16(model, number_format, is_first, is_last, calibration):
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            rounded = (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF0000).view(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    model.doc_string = f"{number_format} {is_first} {is_last}"
    return model


BF16 = Precision(
    name="bf16",
    value_bytes=2,
    file="subnet.bf16.onnx",
    tolerance=Tolerance(max_difference=5e-2, min_cosine=0.999),
    number_formats=("bf16", "bf16-packed"),
    convert=to_bf16,
)


# ---- The runtime: onnxruntime under another name, with wishes of its own. ----


class FakeRuntime(OnnxRuntime):
    name = "fake"


class FakeRecord(RuntimeRecord):
    name = "fake"
    endings = (".onnx", ".fake")
    packages = ("fake-runtime",)
    install = "pip install fake-runtime"
    least_version = "7"
    compiles = True

    def open(self, threads, batch, provider):
        return FakeRuntime(threads, batch=batch)

    def installed_version(self):
        return "7"

    def number_format(self, precision, provider=None, machine="", instruction_sets=()):
        return "bf16-packed" if precision == "bf16" else precision

    def reason_against(self, precision, provider):
        return "it has no integers" if precision == "int8" else None


@pytest.fixture
def device(monkeypatch):
    """A device with both."""
    monkeypatch.setitem(PRECISIONS, "bf16", BF16)
    monkeypatch.setitem(RUNTIMES, "fake", FakeRecord())
    return DeviceSpec("board", "fake", "bf16")


def test_configurations_take_both(device):
    mine = ["device.name=board", "device.runtime=fake", "device.precision=bf16"]
    config = load_config("quickstart", [*mine, "export.tensorrt.precision=bf16"])
    assert config.device.build() == device
    with pytest.raises(UserError, match=r"fp32, fp16, int8, bf16.*'bf8'"):
        load_config("quickstart", [*mine, "device.precision=bf8"])
    with pytest.raises(UserError, match="another precision than 'int8' .*it has no integers"):
        load_config("quickstart", [*mine, "device.precision=int8"])


def test_an_open_batch_is_refused_where_engines_are_compiled(device):
    with pytest.raises(ExportError, match="export.batch=fixed for fake"):
        check_batch(device, "dynamic")


def test_from_blocks_to_the_kit(device, space, subnet, images, tmp_path, monkeypatch):
    table = tmp_path / "table.jsonl"
    config = MeasureConfig(rounds=1, runs=1, minimum_rounds=1, interval=1e9, tolerance=1e9)
    meter = open_meter(device)
    where = (meter.fingerprints[0], tmp_path / "networks", tmp_path / "cache")
    with WorkloadFiles(space, device, *where) as files:
        assert files.number_format == "bf16-packed"
        chain = space.blocks(space.largest)
        paths = files.blocks()
        for block in chain:
            place = f"{block is chain[0]} {block is chain[-1]}"
            assert onnx.load(paths[block.key]).doc_string == f"bf16-packed {place}"
            assert "-bf16-packed-" in paths[block.key].name
        workloads = [Workload(block.key, paths[block.key]) for block in chain]
        workloads += files.networks([space.largest], "network")
        measured = build_table(table, spec=device, workloads=workloads, meter=meter, config=config)
    assert set(measured.keys()) >= {block.key for block in chain}

    folder = tmp_path / "w0"
    network = Subnet(subnet)
    export_network(
        network, folder / "subnet.onnx", input_shape=(1, 1, 16, 16), output_names=["features"]
    )
    path = write_in_format(folder, files.number_format, images, device.batch)
    assert path.name == "subnet.bf16.onnx"

    def write():
        """What the stage does with a winner whose files are there."""
        metadata = {"preprocess": "{}", "classes": "[]", "output": "features"}
        write_winner(
            folder,
            Deployable(network, 16, metadata, {}),
            SimpleNamespace(sample=lambda *_: images, has_labels=False, licence=None),
            Winner("w0", space.largest, 0.9, 1e6, 1e4, {}, (0.8, 1.0), 64),
            space=space,
            device=device,
            table=table,
            table_digest="",
            tensorrt=None,
            form={"batch": "fixed", "quantization": None, "knn_neighbours": 20},
            calibration=images,
        )
        return read_manifest(folder)

    manifest = write()
    assert manifest["measured_file"] == manifest["kit_file"] == "subnet.bf16.onnx"
    assert (manifest["device"]["runtime"], manifest["runtime"]["name"]) == ("fake", "fake")
    for name in ("subnet.bf16.onnx", "subnet.bf16.ort"):
        assert manifest["files"][name]["precision"] == "bf16"
        assert 1e-6 < manifest["files"][name]["parity"]["max_difference"] < 5e-2
    with zipfile.ZipFile(folder / KIT) as archive:
        assert archive.read("subnet.bf16.onnx") == path.read_bytes()

    # The check has the precision's tolerance.
    monkeypatch.setitem(PRECISIONS, "bf16", replace(BF16, tolerance=Tolerance(1e-6, 1.0)))
    with pytest.raises(ExportError, match=r"subnet\.bf16\.onnx equal to .* \(bf16\)"):
        write()
