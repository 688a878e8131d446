"""What can be measured."""

from pathlib import Path

import pytest

from profilers import ProfilerError, Workload


@pytest.mark.parametrize("key", ["", "overhead", "reference", "anchor/x"])
def test_keys_of_the_profiler_itself_are_refused(key: str) -> None:
    with pytest.raises(ProfilerError, match=f"a key that is not empty.*found: '{key}'"):
        Workload(key, Path("a.onnx"))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(
        ProfilerError, match="kind 'block', 'network' or 'validation'; found: 'layer'"
    ):
        Workload("a", Path("a.onnx"), kind="layer")
