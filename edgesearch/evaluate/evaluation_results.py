"""evaluation/results.json: accuracies by digest of everything they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devices.files import write_json
from edgesearch.errors import StageError

FIGURES = {"knn", "linear", "train_images", "test_images"}


class EvaluationResults:
    """The accuracies in a file that belong to one identity; others stay in the file.

    The identity is what accuracies depend on, in plain values: settings, digests of files.

    Raises:
        StageError: The file is damaged.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        plain = json.dumps(dict(identity), sort_keys=True)
        digest = hashlib.sha256(plain.encode()).hexdigest()[:16]
        empty = {"identity": json.loads(plain), "results": {}}
        try:
            self._all: dict[str, Any] = {"evaluations": {}}
            if path.exists():
                self._all = json.loads(path.read_text(encoding="utf-8"))
            here = self._all["evaluations"].setdefault(digest, empty)
            self._results: dict[str, dict[str, Any]] = here["results"]
            for figures in self._results.values():
                if set(figures) != FIGURES:
                    raise ValueError(f"the figures {', '.join(figures)}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StageError(
                f"accuracies that `edgesearch evaluate` wrote in {path}",
                f"{type(error).__name__}: {error}",
                "Move the file away to evaluate again.",
            ) from error

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def __getitem__(self, key: str) -> dict[str, Any]:
        """knn and linear in 0 … 1, train_images and test_images of a subject."""
        return self._results[key]

    def add(
        self, key: str, *, knn: float, linear: float, train_images: int, test_images: int
    ) -> None:
        """Store a subject's accuracies (0 … 1) on disk, with the images used and classified."""
        figures = {"knn": knn, "linear": linear}
        self._results[key] = {**figures, "train_images": train_images, "test_images": test_images}
        write_json(self.path, self._all)
