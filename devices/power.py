"""Power that a machine draws, where sensors report it."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from pathlib import Path

from devices.gpu import read_card_power_w
from devices.machine import read_text

SECONDS_BETWEEN_QUESTIONS = 0.2
"""Shortest time between two queries of a graphics card: queries cost CPU time."""
_TOTAL_RAILS = ("VDD_IN", "VIN", "POM_5V_IN")
"""Jetson rails that feed the whole module; without one of them, all rails are summed."""


class PowerMeter:
    """Reads Jetson sensors (INA3221), or the energy counters (RAPL) of an Intel or AMD CPU.

    Args:
        root: The folder that holds `sys`.
        of_card: Without Jetson sensors, query the NVIDIA graphics card instead of the CPU.
    """

    def __init__(self, root: Path = Path("/"), of_card: bool = False) -> None:
        self._of_card = of_card
        self._asking = threading.Thread()
        self._rails = _rails(root)
        zones = (root / "sys/class/powercap").glob("intel-rapl:?")
        # On most systems only root can read the counters.
        # "psys" is the whole platform and includes the packages listed beside it.
        self._counters = [
            zone
            for zone in zones
            if _number(zone / "energy_uj") is not None and read_text(zone / "name") != "psys"
        ]
        self.restart()

    def restart(self) -> None:
        """Discard all samples."""
        self._wait_for_card()
        self._asked = -math.inf
        self._card_w: float | None = None
        self._samples_w: list[float] = []
        self._began = time.monotonic()
        self._energies_uj = [_number(zone / "energy_uj") or 0 for zone in self._counters]

    def sample(self) -> None:
        """Read the sensors once. Energy counters need no sampling."""
        readings = [(_number(volts), _number(amperes)) for volts, amperes in self._rails]
        if readings:
            self._samples_w.append(sum((mv or 0) * (ma or 0) for mv, ma in readings) / 1e6)
        elif (
            self._of_card
            and time.monotonic() - self._asked >= SECONDS_BETWEEN_QUESTIONS
            and not self._asking.is_alive()
        ):
            # In a thread: the answer takes longer than the pause between two runs.
            self._asked = time.monotonic()
            self._asking = threading.Thread(target=self._ask_card, daemon=True)
            self._asking.start()

    def mean_w(self) -> float | None:
        """Mean power since the last restart, in watts; None if no sensor reports it.

        For a graphics card it is the last value reported while it worked. Only if there is none
        yet, the pending answer is waited for.
        """
        if self._samples_w:
            return sum(self._samples_w) / len(self._samples_w)
        if self._of_card:
            if self._card_w is None:
                self._wait_for_card()
            return self._card_w
        if not self._counters:
            return None
        used_uj = 0
        for zone, before in zip(self._counters, self._energies_uj):
            now = _number(zone / "energy_uj") or 0
            overflow = _number(zone / "max_energy_range_uj") or 0
            used_uj += now - before if now >= before else now - before + overflow
        return used_uj / 1e6 / max(time.monotonic() - self._began, 1e-6)

    def _ask_card(self) -> None:
        card_w = read_card_power_w()
        if card_w is not None:  # a failed query keeps the value before
            self._card_w = card_w

    def _wait_for_card(self) -> None:
        if self._asking.is_alive():
            self._asking.join()


def _rails(root: Path) -> list[tuple[Path, Path]]:
    """Files with millivolts and milliamperes of each rail to sum."""
    found = {}
    for label in sorted((root / "sys/bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*/in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        pair = (label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input"))
        if all(_number(path) is not None for path in pair):
            found[read_text(label) or ""] = pair
    totals = [found[name] for name in _TOTAL_RAILS if name in found]
    return totals[:1] or [pair for name, pair in found.items() if name != "sum of shunt voltages"]


def _number(path: Path) -> int | None:
    with contextlib.suppress(ValueError, OSError):
        return int(path.read_text(encoding="ascii"))
    return None
