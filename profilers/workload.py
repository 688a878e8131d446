"""A workload: a key and the ONNX file it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profilers.errors import ProfilerError

OVERHEAD_KEY = "overhead"
"""A model that does nothing: its latency is the fixed cost of a run."""
REFERENCE_KEY = "reference"
"""A model whose latency shows the state of the machine."""
OWN_KEYS = (OVERHEAD_KEY, REFERENCE_KEY)


@dataclass(frozen=True)
class Workload:
    """A model to measure.

    Args:
        key: Name in the latency table; describes the model completely.
        onnx_path: The model.
        kind: `block` for a part of networks, any other word for whole networks.
        about: Plain JSON values to keep in the table for its readers.

    Raises:
        ProfilerError: If the key is empty, or one of the profiler's own.
    """

    key: str
    onnx_path: Path
    kind: str = "block"
    about: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.key or {self.key, self.kind} & set(OWN_KEYS):
            raise ProfilerError(
                f"a key and a kind other than {' and '.join(map(repr, OWN_KEYS))}, and not empty",
                f"{self.key!r} of kind {self.kind!r}",
                "Rename the workload.",
            )
