"""Picture of predicted against measured latencies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from devices.files import write_bytes


def plot_predictions(
    path: Path, predicted_ms: np.ndarray, measured_ms: np.ndarray, title: str
) -> None:
    """Draw predicted against measured latencies with lines of no error and of 5 and 10 %.

    Args:
        path: The PNG file.
        predicted_ms: (N,) predicted latencies.
        measured_ms: (N,) measured latencies.
        title: Above the picture.

    Raises:
        StageError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.add_subplot()
    ends = [0.9 * min(measured_ms), 1.1 * max(measured_ms)]
    for share, style in ((0.0, "-"), (0.05, "--"), (0.10, ":")):
        for factor in sorted({1 - share, 1 + share}):
            label = f"±{share:.0%}" if share and factor > 1 else None
            axes.plot(ends, [factor * end for end in ends], style, color="0.6", label=label)
    axes.plot(measured_ms, predicted_ms, "o", markersize=4)
    axes.set(xlabel="measured median (ms)", ylabel="predicted median (ms)", title=title)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(path, picture.getvalue())
