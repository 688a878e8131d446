"""The NVIDIA GPU of this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from devices.machine import ask_program, read_text

# Name and compute capability of integrated GPUs, by the chip's name in the device tree. On these
# boards `nvidia-smi` is missing or reports neither.
_INTEGRATED = {
    "nvidia,tegra194": ("Xavier", "7.2"),
    "nvidia,tegra234": ("Orin", "8.7"),
    "nvidia,tegra264": ("Thor", "11.0"),
}


def read_gpu(root: Path = Path("/")) -> dict[str, Any]:
    """Read the first NVIDIA GPU, or the first that `CUDA_VISIBLE_DEVICES` names.

    With a graphics card this runs `nvidia-smi`, which disturbs running work: never call it while
    timing.

    Args:
        root: The folder that holds `proc` and `etc`.

    Returns:
        The GPU fields of a `Fingerprint`; None for what is missing or unknown.
    """
    which = _visible()
    found = (None, None, None, None) if which is None else _integrated(root) or _card(which)
    names = ("gpu", "compute_capability", "gpu_memory_bytes", "driver")
    return dict(zip(names, found))


def _integrated(root: Path) -> tuple[str, str, None, str | None] | None:
    chips = (read_text(root / "proc/device-tree/compatible") or "").split("\0")
    for chip in chips:
        if chip in _INTEGRATED:
            # The driver is part of L4T: "# R36 (release), REVISION: 4.3, …".
            release = read_text(root / "etc/nv_tegra_release") or ""
            found = re.match(r"# R(\d+) .*?REVISION: ([\d.]+)", release)
            name, compute_capability = _INTEGRATED[chip]
            return name, compute_capability, None, f"L4T {found[1]}.{found[2]}" if found else None
    return None


def _visible() -> str | None:
    """First visible GPU, by number or identifier; empty if all are visible, None if none is."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = "" if visible is None else visible.split(",")[0].strip()
    is_hidden = first == "-1" or (first == "" and visible is not None)
    return None if is_hidden else first


def read_card_power_w() -> float | None:
    """Power of the visible graphics card by `nvidia-smi`; None if unknown.

    Newer cards report the mean of the last second.
    """
    which = _visible()
    try:
        return None if which is None else float(_query("power.draw", which, ",nounits"))
    except ValueError:
        return None


def _card(which: str) -> tuple[str | None, str | None, int | None, str | None]:
    answer = _query("name,driver_version,memory.total,compute_cap", which)
    values = [_known(value) for value in answer.split(",")]
    if len(values) != 4:
        return None, None, None, None
    name, driver, memory, compute_capability = values
    mebibytes = re.fullmatch(r"(\d+) MiB", memory or "")
    return name, compute_capability, int(mebibytes[1]) << 20 if mebibytes else None, driver


def _query(fields: str, which: str, units: str = "") -> str:
    """First line that `nvidia-smi` prints; empty if it prints nothing."""
    query = [f"--query-gpu={fields}", f"--format=csv,noheader{units}"]
    answer = ask_program("nvidia-smi", *query, *([f"--id={which}"] if which else []))
    return (answer or "").split("\n")[0]


def _known(value: str) -> str | None:
    """The value; None for `[N/A]` and the like."""
    return None if re.search("N/A|Not Supported|Unknown", value) else value.strip() or None
