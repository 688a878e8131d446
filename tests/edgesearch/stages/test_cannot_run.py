"""Blocks that the runtime cannot run: what needs them is counted, said and left out."""

import json

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from devices import load_device, take_fingerprint
from edgesearch.families import space_from_dict
from edgesearch.latency.workloads import WorkloadFiles
from profilers import LatencyTable


@pytest.fixture
def space(chain):
    manifest = chain.output_dir / "engines/w0/manifest.json"
    return space_from_dict(json.loads(manifest.read_text("utf-8"))["space"])


@pytest.fixture
def spoilt(chain, space, tmp_path):
    """A cache where one of the two stems is valid ONNX that onnxruntime has no kernel for."""
    device = load_device("local-cpu")
    fingerprint = take_fingerprint("onnxruntime", onnxruntime.__version__)
    with WorkloadFiles(
        space, device, fingerprint, tmp_path / "networks", tmp_path / "cache"
    ) as files:
        paths = files.blocks()
    key = space.blocks(space.largest)[0].key
    model = onnx.load(paths[key])
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["before"], ["short"], to=TensorProto.BFLOAT16),
            helper.make_node("Relu", ["short"], ["relu"]),
            helper.make_node("Cast", ["relu"], [output], to=TensorProto.FLOAT),
        ]
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, paths[key])
    (table,) = (chain.output_dir / "latency").glob("*.jsonl")
    table.unlink()
    return key, table, f"profile.cache_dir={tmp_path / 'cache'}"


def test_they_are_counted_by_profile_and_search_and_never_chosen(chain, space, spoilt):
    key, path, cache = spoilt
    needs_it = sum(key in {block.key for block in space.blocks(a)} for a in space)
    assert 0 < needs_it < space.size
    said = f"{needs_it} of {space.size} architectures cannot run on the device and are left out"

    done = chain.call("profile", cache)
    assert done.returncode == 0, done.stderr
    assert f"1 blocks cannot run: {key}" in done.stdout
    assert said in done.stdout
    table = LatencyTable.load(path)
    assert "NOT_IMPLEMENTED" in table.errors[key]
    # Networks that have the block cannot run, and others were measured in their place.
    networks = [space.from_choices(n.architecture) for n in table.networks(space.space_hash)]
    assert len(networks) >= 6
    assert all(key not in {block.key for block in space.blocks(a)} for a in networks)

    before = path.read_bytes()
    again = json.loads(chain.call("profile", cache, "--json").stdout)
    assert again["skipped"]
    assert path.read_bytes() == before
    assert (again["cannot_run"], again["size"]) == (needs_it, space.size)
    assert again["failed_blocks"] == [key]

    share = chain.call("search", cache, "search.budgets={latency_of_largest: 0.5}")
    assert share.returncode == 2
    assert "a largest network that the device can run" in share.stderr

    searched = chain.call("search", cache)
    assert searched.returncode == 0, searched.stderr
    assert said in searched.stdout
    found = json.loads(chain.call("search", cache, "--json").stdout)
    assert found["cannot_run"] == needs_it
    assert found["feasible"] <= space.size - needs_it
    for winner in found["winners"]["winners"] + found["winners"]["reserves"]:
        assert winner["architecture"]["stem_width"] == min(space.stem_widths)


def test_they_are_tried_again_if_that_is_asked_for_and_said_to_be_possible(chain, space, spoilt):
    key, path, cache = spoilt
    shown = chain.call("profile", cache).stdout
    assert f"{key} could not run because of: " in shown
    assert "NOT_IMPLEMENTED" in shown
    assert "profile.retry_errors=true" in shown
    # The cause has passed; nobody tries again unasked.
    mended = f"profile.cache_dir={chain.output_dir / 'mended'}"
    for stage in ("profile", "search"):
        done = chain.call(stage, mended)
        assert done.returncode == 0, done.stderr
    assert key in LatencyTable.load(path).errors
    again = json.loads(chain.call("profile", mended, "profile.retry_errors=true", "--json").stdout)
    assert (again["skipped"], again["failed_blocks"], again["cannot_run"]) == (False, [], 0)
    table = LatencyTable.load(path)
    assert key not in table.errors
    assert table.rounds(key) > 0
    assert f"{key} could not run" not in again["description"]
    before = path.read_bytes()
    retried = chain.call("profile", mended, "profile.retry_errors=true", "--json")
    assert json.loads(retried.stdout)["skipped"]
    assert path.read_bytes() == before


def test_a_device_that_runs_everything_is_not_spoken_of(finished):
    assert "cannot run" not in finished[1].stdout
    chain, _ = finished
    assert json.loads((chain.output_dir / "search/pareto.json").read_text())["cannot_run"] == 0
