"""Blocks that the runtime cannot run: what needs them is counted, said and left out."""

import pytest

from edgesearch.latency.table import measured_networks
from edgesearch.stages import within_budget
from profilers import LatencyTable


@pytest.fixture
def spoilt(chain, spoilt_cache):
    """The key of a block that cannot run, the path of the table, and the cache with the block."""
    key, cache = spoilt_cache(chain.space)
    path = chain.table
    path.unlink()
    return key, path, f"profile.cache_dir={cache}"


def test_they_are_counted_never_chosen_and_tried_again_only_if_asked(chain, spoilt):
    key, path, cache = spoilt
    space = chain.space
    needs_it = {a for a in space if key in {block.key for block in space.blocks(a)}}
    assert 0 < len(needs_it) < space.size
    count = f"{len(needs_it)} of {space.size} architectures"
    said = f"{count} cannot run on the device and are excluded"

    done = chain.passes("profile", cache)
    assert f"1 blocks cannot run: {key}" in done.stdout
    assert said in done.stdout
    assert f"{key} could not run because of: " in done.stdout
    assert "profile.retry_errors=true" in done.stdout
    table = LatencyTable.load(path)
    assert "NOT_IMPLEMENTED" in table.errors[key]
    # Networks that have the block cannot run, and others were measured in their place.
    networks = [network.architecture for network in measured_networks(table, space)]
    assert len(networks) >= 6
    assert needs_it.isdisjoint(networks)

    before = path.read_bytes()
    again = chain.json("profile", cache)
    assert again["skipped"]
    assert path.read_bytes() == before
    assert (again["cannot_run"], again["size"]) == (len(needs_it), space.size)
    assert again["failed_blocks"] == [key]

    share = "search.budgets={latency_of_largest: 0.5}"
    chain.refuses("search", cache, share, says="a largest network that the device can run")
    assert said in chain.passes("search", cache).stdout
    found = chain.json("search", cache)
    assert found["cannot_run"] == len(needs_it)
    assert found["feasible"] <= space.size - len(needs_it)
    for winner in found["winners"]["winners"] + found["winners"]["reserves"]:
        assert chain.architecture(winner["architecture"]) not in needs_it

    # The cause has passed; nobody tries again unasked.
    mended = f"profile.cache_dir={chain.output_dir / 'mended'}"
    for stage in ("profile", "search"):
        chain.passes(stage, mended)
    assert key in LatencyTable.load(path).errors
    again = chain.json("profile", mended, "profile.retry_errors=true")
    assert (again["skipped"], again["failed_blocks"], again["cannot_run"]) == (False, [], 0)
    table = LatencyTable.load(path)
    assert key not in table.errors
    assert table.rounds(key) > 0
    assert f"{key} could not run" not in again["description"]
    before = path.read_bytes()
    assert chain.json("profile", mended, "profile.retry_errors=true")["skipped"]
    assert path.read_bytes() == before


def test_a_winner_that_cannot_run_is_said_with_what_to_do(chain, spoil, monkeypatch):
    real = within_budget.write_in_format

    def spoilt_at_first(*args):
        path = real(*args)
        spoil(path)
        return path

    monkeypatch.setattr(within_budget, "write_in_format", spoilt_at_first)
    other = "export.output=logits"
    said = chain.refuses("export", other, says="required: w0 (stem")
    assert "NOT_IMPLEMENTED" in said
    assert "If the cause has passed, run the same command again; otherwise choose another" in said
    monkeypatch.undo()
    chain.passes("export", other)
