"""Which TensorRT is installed, and what it can do."""

import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from devices import TensorRTBuilder, TensorRTRuntime
from devices.errors import RuntimeMissingError
from devices.runtimes.tensorrt_bindings import Features, collected_errors, load_bindings


def test_the_features_of_tensorrt_for_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    assert load_bindings("tensorrt-rtx") is trt
    assert Features.of(trt) == Features(
        typed_flag=True, typed=True, absent_gpus=True, runtime_cache=True, capturable=True
    )


def test_the_features_of_older_tensorrt(emulate_gpu: Callable[..., Any]) -> None:
    assert Features.of(emulate_gpu().tensorrt) == Features(
        typed_flag=True, typed=True, absent_gpus=False, runtime_cache=False, capturable=False
    )


def test_where_types_are_always_kept_no_flag_is_needed(emulate_gpu: Callable[..., Any]) -> None:
    trt = emulate_gpu().tensorrt
    trt.NetworkDefinitionCreationFlag = Enum("NetworkDefinitionCreationFlag", "OTHER")
    trt.BuilderFlag = Enum("BuilderFlag", "TF32")
    features = Features.of(load_bindings("tensorrt"))
    assert features.typed
    assert not features.typed_flag


@pytest.mark.parametrize("flags", [{}, {"NetworkDefinitionCreationFlag": Enum("Flag", "OTHER")}])
def test_what_does_not_keep_types_is_too_old(
    flags: dict[str, Any], emulate_gpu: Callable[..., Any]
) -> None:
    trt = emulate_gpu().tensorrt
    del trt.NetworkDefinitionCreationFlag
    trt.__dict__.update(flags, __version__="8.6.1")
    with pytest.raises(
        RuntimeMissingError, match=r"TensorRT 10 or newer; found: 8.6.1, .*keep a network's types"
    ):
        TensorRTRuntime("tensorrt")


def test_bindings_that_cannot_build_for_absent_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", ModuleType("tensorrt_rtx_bindings"))
    with pytest.raises(RuntimeMissingError, match="cannot build for absent GPUs"):
        TensorRTBuilder("tensorrt-rtx", ["SM89"])


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ("tensorrt", r"pip install tensorrt; on a Jetson: sudo apt install python3-libnvinfer"),
        ("tensorrt-rtx", "pip install tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs"),
    ],
)
def test_without_the_package_the_pip_command_is_given(
    family: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeMissingError, match=f"the packages of TensorRT.*{command}"):
        TensorRTRuntime(family)


def test_bindings_without_their_libraries_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = "raise OSError('libnvinfer.so.10: cannot open shared object file')"
    (tmp_path / "tensorrt_bindings.py").write_text(program, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RuntimeMissingError, match=r"found: libnvinfer.so.10: cannot open"):
        TensorRTRuntime("tensorrt")


def test_errors_go_to_the_block_that_asked_for_them(emulate_gpu: Callable[..., Any]) -> None:
    trt = emulate_gpu().tensorrt
    severities = trt.ILogger.Severity
    with collected_errors(trt) as (logger, outer):
        logger.log(severities.WARNING, "never mind")
        with collected_errors(trt) as (same, inner):
            same.log(severities.ERROR, "inner")
        logger.log(severities.INTERNAL_ERROR, "outer")
    logger.log(severities.ERROR, "nobody asked")
    assert same is logger
    assert (outer, inner) == (["outer"], ["inner"])
