"""What edgesearch keeps in a latency table beside the measurements, and reads from it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesearch.errors import LatencyError
from edgesearch.latency.correction import Correction
from edgesearch.space import Architecture, SearchSpace
from profilers import LatencyTable, Steadiness, describe_table
from profilers.table_file import read_table

BLOCK = "block"
NETWORK = "network"
"""Kind of the networks that are measured beside the blocks, to fit a correction to."""
VALIDATION = "validation"
"""Kind of the networks that predictions are judged by."""
WINNER = "winner"
"""Kind of exported networks. They were measured on this device: a correction is fitted to them,
too."""
_NOUNS = {NETWORK: "whole network", VALIDATION: "held-out network", WINNER: "exported winner"}
_OWNER = "edgesearch"


@dataclass(frozen=True)
class MeasuredNetwork:
    """A whole network that was measured.

    Attributes:
        key: Its key in the table.
        architecture: Its architecture.
        low_ms: What a run takes when nothing disturbs.
        median_ms: Median of a run.
        p95_ms: 95th percentile of a run.
        interval_ms: Where the median is with 95 % confidence.
    """

    key: str
    architecture: Architecture
    low_ms: float
    median_ms: float
    p95_ms: float
    interval_ms: tuple[float, float]


def about_network(space: SearchSpace, architecture: Architecture) -> dict[str, Any]:
    """What the table keeps of a network: `Workload.about`."""
    return {"architecture": dict(architecture), "space_hash": space.space_hash}


def measured_networks(
    table: LatencyTable, space: SearchSpace, *kinds: str
) -> list[MeasuredNetwork]:
    """The whole networks of a space that were measured, in the order of their first samples.

    Args:
        table: The table.
        space: The space.
        *kinds: `NETWORK`, `VALIDATION`, `WINNER`; what a correction is fitted to if none is given.
    """
    found = {key: table.about(key) for key in table.keys(*(kinds or (NETWORK, WINNER)))}
    return [
        MeasuredNetwork(
            key=key,
            architecture=space.from_choices(about["architecture"]),
            low_ms=table.low_quantile_ms(key, with_overhead=True),
            median_ms=table.median_ms(key),
            p95_ms=table.percentile_ms(key, 95),
            interval_ms=table.median_interval_ms(key),
        )
        for key, about in found.items()
        if about.get("space_hash") == space.space_hash
    ]


@dataclass(frozen=True)
class CorrectionNote:
    """A correction as it is kept in a table, with what is known of it.

    Attributes:
        space_hash: The space that it was fitted for.
        correction: The correction.
        rounds: How many rounds were asked for when `edgesearch profile` last finished; 0 if it has
            not.
        last_session: Number of the last session then.
        validation: `PredictionError.to_dict()` of networks that it was not fitted to; None if
            there were none.
    """

    space_hash: str
    correction: Correction
    rounds: int = 0
    last_session: int = 0
    validation: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "correction": self.correction.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CorrectionNote:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: Something is of the wrong kind; or a KeyError or TypeError.
        """
        note = cls(**{**values, "correction": Correction.from_dict(values["correction"])})
        checked = note.validation
        is_right = {
            "space_hash": isinstance(note.space_hash, str),
            "rounds": isinstance(note.rounds, int) and note.rounds >= 0,
            "last_session": isinstance(note.last_session, int),
            "validation": checked is None
            or all(math.isfinite(checked[name]) for name in ("n", "mape", "worst")),
        }
        for name in (name for name, right in is_right.items() if not right):
            raise ValueError(f"{name} {getattr(note, name)!r}")
        return note


def correction_notes(table: LatencyTable) -> dict[str, CorrectionNote]:
    """The last correction of each space, by the space's hash.

    Raises:
        LatencyError: A line is damaged; names it.
    """
    found = {}
    for line in table.notes(_OWNER):
        try:
            note = CorrectionNote.from_dict(line.values)
        except (ValueError, KeyError, TypeError) as error:
            raise LatencyError(
                f"corrections that `edgesearch profile` wrote in {table.path}",
                f"line {line.line}: {type(error).__name__}: {error}",
                "Remove this line, and run `edgesearch profile` again.",
            ) from error
        found[note.space_hash] = note
    return found


def current_correction(space: SearchSpace, table: LatencyTable) -> Correction | None:
    """The last correction that was fitted for a space; None if there is none."""
    note = correction_notes(table).get(space.space_hash)
    return None if note is None else note.correction


def keep_correction(
    space: SearchSpace, table: LatencyTable, correction: Correction, **facts: Any
) -> None:
    """Append a correction; what is known of the measuring is taken over from the one before.

    Args:
        space: The space that it was fitted for.
        table: Gets the line.
        correction: The correction.
        **facts: `rounds` wanted up to the `last_session`, or errors found in a `validation`.
    """
    before = correction_notes(table).get(space.space_hash)
    kept = {} if before is None else {"rounds": before.rounds, "last_session": before.last_session}
    note = CorrectionNote(space.space_hash, correction, **{**kept, **facts})
    table.append_note(_OWNER, note.to_dict())


def steadiness_of(table: LatencyTable) -> Steadiness:
    """How steady the machine of a table was, by the rounds that `edgesearch profile` asked for.

    That says nothing of networks held out, which are another command's.
    """
    asked = max((note.rounds for note in correction_notes(table).values()), default=0)
    return table.steadiness(dict.fromkeys((BLOCK, NETWORK, WINNER), asked))


def describe(table: LatencyTable) -> str:
    """What a table is of, how far it can be trusted, and how well predictions from it hold.

    Raises:
        UserError: A session shares nothing with the others, or a correction is damaged.
    """
    notes = correction_notes(table)
    measured = describe_table(table, steadiness_of(table), _NOUNS)
    if not notes:
        text = "No prediction of whole networks is fitted to it: `edgesearch profile` does that."
        return "\n".join([*measured, text])
    return "\n".join([*measured, *map(_describe_correction, notes.values())])


def _describe_correction(note: CorrectionNote) -> str:
    correction, checked = note.correction, note.validation
    networks = f"{correction.networks} network{'s' if correction.networks != 1 else ''}"
    text = (
        f"Predictions in the space {note.space_hash[:8]} are fitted to {networks}: mean error "
        f"{correction.fit_mape:.1%}, {correction.loo_mape:.1%} on each when it is left out"
    )
    if checked is None:
        return f"{text}; not validated on others yet."
    return f"{text}; {checked['mape']:.1%} (worst {checked['worst']:.1%}) on {checked['n']} others."


def table_digest(path: Path) -> str:
    """Tells whether the blocks and networks of a table have been measured anew.

    What the export of a search's own results appends does not count: corrections, winners, and
    what is measured beside them. Nor does another error of what could not run before.
    """
    (_, header), *lines = read_table(path)
    digest, failed = hashlib.sha256(_plain(header)), set()
    for _, values in lines:
        if values.get("kind") in (BLOCK, NETWORK) and not values.get("anchor"):
            if "error" not in values:
                failed.discard(values["key"])
            elif values["key"] in failed:
                continue
            else:
                failed.add(values["key"])
            digest.update(_plain(values))
    return digest.hexdigest()


def _plain(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True).encode()
