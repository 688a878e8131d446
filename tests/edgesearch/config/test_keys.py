"""What `edgesearch keys` tells of each option."""

import pytest

from edgesearch.config.keys import keys
from edgesearch.errors import ConfigError


def one(path):
    (found,) = [key for key in keys(path) if key.path == path]
    return found


def test_every_key_has_a_kind_and_a_meaning():
    found = keys()
    assert len(found) > 100
    assert len({key.path for key in found}) == len(found)
    assert all(key.kind and key.meaning for key in found)


@pytest.mark.parametrize(
    ("path", "kind", "default"),
    [
        ("output_dir", "path", None),
        ("pretrain.epochs", "whole number ≥ 0", "200"),
        ("pretrain.momentum", "number ≥ 0, < 1", "0.9"),
        ("pretrain.device", "auto, cpu, cuda", "'auto'"),
        ("pretrain.augmentation.jitter.hue", "number ≥ 0, ≤ 0.5", "0.1"),
        ("profile.accept", "list of text", "[]"),
        ("search.budgets.devices.NAME.latency_ms", None, "null"),
        ("search.budgets.latency_of_largest", "number > 0, ≤ 1 or list", "null"),
    ],
)
def test_kind_bounds_and_default(path, kind, default):
    found = one(path)
    assert kind is None or found.kind.startswith(kind)
    assert found.default == default


def test_a_prefix_is_a_section_the_beginning_of_a_key_or_its_last_word():
    assert {key.path.split(".")[0] for key in keys("rank")} == {"rank"}
    assert [key.path for key in keys("search.evalu")] == ["search.evaluations"]
    assert "pretrain.epochs" in [key.path for key in keys("epochs")]


def test_an_unknown_prefix_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean pretrain\.batch_size"):
        keys("batchsize")
    with pytest.raises(ConfigError, match="lists all"):
        keys("zzz")
