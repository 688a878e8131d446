"""evaluation/results.json: accuracies, kept under digests of all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devices.files import write_json
from edgesearch.errors import StageError

FORMAT = 1
FIGURES = ("knn", "linear", "train_images", "test_images")


class EvaluationResults:
    """The accuracies of one set of weights, images and settings; those of others stay in the file.

    Args:
        path: The file; it may exist.
        identity: What accuracies depend on, in plain values: settings, digests of files.

    Raises:
        StageError: The file is damaged.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        plain = json.dumps(dict(identity), sort_keys=True)
        digest = hashlib.sha256(plain.encode()).hexdigest()[:16]
        self._all: dict[str, Any] = {"format": FORMAT, "evaluations": {}}
        try:
            if path.exists():
                self._all = self._read()
            here = self._all["evaluations"].setdefault(
                digest, {"identity": json.loads(plain), "results": {}}
            )
            self._results: dict[str, dict[str, Any]] = here["results"]
            for figures in self._results.values():
                if set(figures) != set(FIGURES):
                    raise ValueError(f"the figures {', '.join(figures)}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StageError(
                f"accuracies that `edgesearch evaluate` wrote in {path}",
                f"{type(error).__name__}: {error}",
                "Move the file away to evaluate anew.",
            ) from error

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"the format {found['format']!r}")
        return found

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._results[key]

    def add(
        self, key: str, *, knn: float, linear: float, train_images: int, test_images: int
    ) -> None:
        """Keep the accuracies of a subject; they are on disk when this returns.

        Args:
            key: Key of the subject.
            knn: kNN accuracy, in 0 … 1.
            linear: Accuracy of the linear probe, in 0 … 1.
            train_images: Training images that were used.
            test_images: Images held out that were classified.

        Raises:
            StageError: The file cannot be written.
        """
        figures = {"knn": knn, "linear": linear}
        self._results[key] = {**figures, "train_images": train_images, "test_images": test_images}
        write_json(self.path, self._all)
