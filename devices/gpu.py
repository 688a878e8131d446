"""Which NVIDIA GPU this machine has."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from devices.machine import ask_program, read_text

# Name and compute capability of GPUs that are part of a board's chip, by the chip's name in the
# device tree. (There `nvidia-smi` is missing, or knows neither of the two.)
_INTEGRATED = {
    "nvidia,tegra194": ("Xavier", "7.2"),
    "nvidia,tegra234": ("Orin", "8.7"),
    "nvidia,tegra264": ("Thor", "11.0"),
}
_QUERY = "name,driver_version,memory.total,compute_cap"


def read_gpu(root: Path = Path("/")) -> dict[str, Any]:
    """Look for an NVIDIA GPU: the first one, or the first that `CUDA_VISIBLE_DEVICES` names.

    On machines with a graphics card this runs `nvidia-smi`, which disturbs what the card computes
    meanwhile: never call it while something is timed.

    Args:
        root: The folder that holds `proc` and `etc`.

    Returns:
        Fields of a `Fingerprint`, by name; None for what is not there or not known.
    """
    which = _visible()
    found = (None, None, None, None) if which is None else _integrated(root) or _card(which)
    gpu, compute_capability, memory_bytes, driver = found
    return {
        "gpu": gpu,
        "compute_capability": compute_capability,
        "gpu_memory_bytes": memory_bytes,
        "driver": driver,
    }


def _integrated(root: Path) -> tuple[str, str, None, str | None] | None:
    chips = (read_text(root / "proc/device-tree/compatible") or "").split("\0")
    for chip in chips:
        if chip in _INTEGRATED:
            # The driver is part of the board's system: "# R36 (release), REVISION: 4.3, …".
            release = read_text(root / "etc/nv_tegra_release") or ""
            found = re.match(r"# R(\d+) .*?REVISION: ([\d.]+)", release)
            name, compute_capability = _INTEGRATED[chip]
            return name, compute_capability, None, f"L4T {found[1]}.{found[2]}" if found else None
    return None


def _visible() -> str | None:
    """The first GPU that runtimes see, by number or identifier.

    Returns:
        Empty if they see all; None if they see none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = "" if visible is None else visible.split(",")[0].strip()
    is_hidden = first == "-1" or (first == "" and visible is not None)
    return None if is_hidden else first


def read_card_power_w() -> float | None:
    """Ask `nvidia-smi` for the power of the graphics card that runtimes see; None if it is unknown.

    Newer cards tell their mean of the last second.
    """
    which = _visible()
    query = ["--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    answer = ask_program("nvidia-smi", *query, *([f"--id={which}"] if which else []))
    try:
        return None if which is None else float((answer or "").split("\n")[0])
    except ValueError:
        return None


def _card(which: str) -> tuple[str | None, str | None, int | None, str | None]:
    query = [f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    answer = ask_program("nvidia-smi", *query, *([f"--id={which}"] if which else []))
    values = [_known(value) for value in (answer or "").split("\n")[0].split(",")]
    if len(values) != len(_QUERY.split(",")):
        return None, None, None, None
    name, driver, memory, compute_capability = values
    mebibytes = re.fullmatch(r"(\d+) MiB", memory or "")
    return name, compute_capability, int(mebibytes[1]) << 20 if mebibytes else None, driver


def _known(value: str) -> str | None:
    """The value; None for `[N/A]` and the like."""
    return None if re.search("N/A|Not Supported|Unknown", value) else value.strip() or None
