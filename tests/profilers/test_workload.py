"""What can be measured."""

from pathlib import Path

import pytest

from profilers import ProfilerError, Workload


@pytest.mark.parametrize(
    ("key", "kind"), [("", "block"), ("overhead", "block"), ("a", "overhead"), ("a", "reference")]
)
def test_what_is_the_profilers_own_is_refused(key: str, kind: str) -> None:
    with pytest.raises(ProfilerError, match=f"found: '{key}' of kind '{kind}'"):
        Workload(key, Path("a.onnx"), kind)
