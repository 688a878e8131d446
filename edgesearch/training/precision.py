"""Mixed precision: networks in bfloat16, losses in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
"""Autocast dtypes of networks; weights, gradients and statistics stay float32."""
Function = TypeVar("Function", bound=Callable[..., torch.Tensor])


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast context of a precision in `PRECISIONS`."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def in_full_precision(function: Function) -> Function:
    """Make a function of tensors compute in float32 even under autocast."""

    @wraps(function)
    def wrapped(*args: Any) -> torch.Tensor:
        device = next(arg.device.type for arg in args if isinstance(arg, torch.Tensor))
        if not torch.is_autocast_enabled(device):
            return function(*args)
        with torch.autocast(device, enabled=False):
            return function(*(_float32(arg) for arg in args))

    return wrapped  # type: ignore[return-value]


def _float32(value: Any) -> Any:
    halved = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if halved else value
