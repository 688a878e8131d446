"""What is measured: a key and the ONNX file that it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profilers.errors import ProfilerError
from profilers.latency_record import ANCHOR, NETWORK_KINDS

OVERHEAD_KEY = "overhead"
REFERENCE_KEY = "reference"


@dataclass(frozen=True)
class Workload:
    """A model to be measured.

    Args:
        key: Name in the latency table; describes the model completely.
        onnx_path: The model.
        kind: `block`, a part of networks; `network`, a whole one that predictions are fitted to;
            `validation`, a whole one that they are judged by.
        architecture: That of a whole network, as plain JSON values.
        space_hash: Hash of the search space that a network is of.

    Raises:
        ProfilerError: If the key is empty or taken, or the kind unknown.
    """

    key: str
    onnx_path: Path
    kind: str = "block"
    architecture: dict[str, Any] | None = None
    space_hash: str | None = None

    def __post_init__(self) -> None:
        taken = self.key in (OVERHEAD_KEY, REFERENCE_KEY) or self.key.startswith(ANCHOR)
        if not self.key or taken:
            raise ProfilerError(
                f"a key that is not empty, {OVERHEAD_KEY!r}, {REFERENCE_KEY!r} or {ANCHOR + '…'!r}",
                repr(self.key),
                "Rename the workload.",
            )
        if self.kind not in ("block", *NETWORK_KINDS):
            raise ProfilerError(
                f"a workload of kind 'block', {' or '.join(map(repr, NETWORK_KINDS))}",
                repr(self.kind),
                "Change the kind.",
            )
