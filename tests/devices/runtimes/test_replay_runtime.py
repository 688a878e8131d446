"""Recorded samples."""

from pathlib import Path

import pytest

from devices import ReplayRuntime
from devices.errors import EngineError


def test_samples_come_in_turn_and_begin_again() -> None:
    session = ReplayRuntime({"block": [1.0, 2.0, 3.0]}).load(Path("anywhere/block.onnx"))
    assert session.time_ms(2) == [1.0, 2.0]
    assert session.time_ms(3) == [3.0, 1.0, 2.0]


def test_an_empty_recording_is_refused() -> None:
    with pytest.raises(EngineError, match="recorded samples of 'block'; found: samples of block"):
        ReplayRuntime({"block": []}).load(Path("block.onnx"))
