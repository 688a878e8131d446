"""What edgesearch adds to a latency table: kinds of workloads, and corrections."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from devices.files import write_bytes
from edgesearch.errors import LatencyError
from edgesearch.latency.correction import Correction
from edgesearch.latency.head_latency import HeadFit
from edgesearch.space import Architecture, SearchSpace
from edgesearch.tasks.head_costs import TaskHead
from profilers import LatencyTable, Steadiness, describe_table, table_csv
from profilers.table_file import read_table

BLOCK = "block"
NETWORK = "network"
"""Kind of the networks that a correction is fitted to."""
VALIDATION = "validation"
"""Kind of the held-out networks."""
WINNER = "winner"
"""Kind of exported networks; a correction is fitted to them too."""
WHOLE = "whole"
"""Kind of exported networks with the head of a task; its latency is fitted to them too."""
WITH_HEAD = "with_head"
"""Kind of the networks that the latency of a head is fitted to."""
WITH_HEAD_VALIDATION = "with_head_validation"
"""Kind of the held-out networks with a head."""
_NOUNS = {
    NETWORK: "whole network",
    VALIDATION: "held-out network",
    WINNER: "exported winner",
    WHOLE: "exported whole model",
    WITH_HEAD: "whole model",
    WITH_HEAD_VALIDATION: "held-out whole model",
}
_OWNER = "edgesearch"
_Note = TypeVar("_Note")


@dataclass(frozen=True)
class MeasuredNetwork:
    """A measured whole network.

    Attributes:
        low_ms: Low quantile: latency without disturbance.
    """

    key: str
    architecture: Architecture
    low_ms: float
    median_ms: float
    p95_ms: float


def about_network(
    space: SearchSpace, architecture: Architecture, head: TaskHead | None = None
) -> dict[str, Any]:
    """`Workload.about` of a network; `head` is that of a whole model."""
    about = {"architecture": dict(architecture), "space_hash": space.space_hash}
    return about if head is None else {**about, "head": head.to_dict()}


def measured_networks(
    table: LatencyTable, space: SearchSpace, *kinds: str, head: TaskHead | None = None
) -> list[MeasuredNetwork]:
    """The measured whole networks of a space, in the order of their first samples.

    `kinds` are `NETWORK`, `VALIDATION`, `WINNER`, for whole models with a head `WITH_HEAD`,
    `WITH_HEAD_VALIDATION`, `WHOLE`; by default those that predictions are fitted to.
    """
    usual = (NETWORK, WINNER) if head is None else (WITH_HEAD, WHOLE)
    found = {key: table.about(key) for key in table.keys(*(kinds or usual))}
    wanted = None if head is None else head.to_dict()
    return [
        MeasuredNetwork(
            key=key,
            architecture=space.from_choices(about["architecture"]),
            low_ms=table.low_quantile_ms(key, with_overhead=True),
            median_ms=table.median_ms(key),
            p95_ms=table.percentile_ms(key, 95),
        )
        for key, about in found.items()
        if about.get("space_hash") == space.space_hash and about.get("head") == wanted
    ]


@dataclass(frozen=True)
class CorrectionNote:
    """A correction in a table, and how it was obtained.

    Attributes:
        rounds: Rounds requested when `edgesearch profile` last finished; 0 if it has not.
        least_ms: Duration of all runs of a key requested then.
        last_session: Number of the last session at that time.
        validation: Fields of `PredictionError`, and whether it is on held-out networks; None if not
            validated.
    """

    space_hash: str
    correction: Correction
    rounds: int = 0
    least_ms: float = 0.0
    last_session: int = 0
    validation: Mapping[str, Any] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CorrectionNote:
        """Read the result of `dataclasses.asdict`.

        Raises:
            ValueError, KeyError, TypeError: The values are damaged.
        """
        note = cls(**{**values, "correction": Correction.from_dict(values["correction"])})
        is_right = {
            "space_hash": isinstance(note.space_hash, str),
            "rounds": isinstance(note.rounds, int) and note.rounds >= 0,
            "least_ms": isinstance(note.least_ms, (int, float)) and note.least_ms >= 0,
            "last_session": isinstance(note.last_session, int),
            "validation": _is_validation(note.validation),
        }
        for name in (name for name, right in is_right.items() if not right):
            raise ValueError(f"{name} {getattr(note, name)!r}")
        return note


def correction_notes(table: LatencyTable) -> dict[str, CorrectionNote]:
    """The last correction of each space, by the space's hash.

    Raises:
        LatencyError: A line is damaged; names it.
    """
    notes = _notes(table, CorrectionNote.from_dict)
    return {note.space_hash: note for note in notes}


@dataclass(frozen=True)
class HeadNote:
    """The latency of a head in a table.

    Attributes:
        validation: See `CorrectionNote`.
    """

    space_hash: str
    head: TaskHead
    fit: HeadFit
    validation: Mapping[str, Any] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> HeadNote:
        """Read the result of `dataclasses.asdict`.

        Raises:
            ValueError, KeyError, TypeError: The values are damaged.
        """
        head, fit = TaskHead(**values["head"]), HeadFit.from_dict(values["fit"])
        note = cls(**{**values, "head": head, "fit": fit})
        if not _is_validation(note.validation):
            raise ValueError(f"validation {note.validation!r}")
        return note


def head_notes(table: LatencyTable) -> dict[tuple[str, TaskHead], HeadNote]:
    """The last fit of each head in each space, by the space's hash and the head.

    Raises:
        LatencyError: A line is damaged; names it.
    """
    notes = _notes(table, HeadNote.from_dict, heads=True)
    return {(note.space_hash, note.head): note for note in notes}


def current_head(space: SearchSpace, table: LatencyTable, head: TaskHead) -> HeadFit | None:
    """The last fit of a head in a space; None if there is none."""
    note = head_notes(table).get((space.space_hash, head))
    return None if note is None else note.fit


def keep_head(
    space: SearchSpace,
    table: LatencyTable,
    head: TaskHead,
    fit: HeadFit,
    validation: Mapping[str, Any] | None = None,
) -> None:
    """Append the fit of a head."""
    table.append_note(_OWNER, asdict(HeadNote(space.space_hash, head, fit, validation)))


def _is_validation(checked: Mapping[str, Any] | None) -> bool:
    return checked is None or all(
        math.isfinite(checked[name]) for name in ("n", "mape", "worst", "held_out")
    )


def _notes(
    table: LatencyTable, read: Callable[[Mapping[str, Any]], _Note], heads: bool = False
) -> list[_Note]:
    """The notes of corrections or of heads.

    Raises:
        LatencyError: A line is damaged; names it.
    """
    found = []
    for line in table.notes(_OWNER):
        if ("head" in line.values) != heads:
            continue
        try:
            found.append(read(line.values))
        except (ValueError, KeyError, TypeError) as error:
            raise LatencyError(
                f"corrections that `edgesearch profile` wrote in {table.path}",
                f"line {line.line}: {type(error).__name__}: {error}",
                "Remove this line, and run `edgesearch profile` again.",
            ) from error
    return found


def current_correction(space: SearchSpace, table: LatencyTable) -> Correction | None:
    """The last correction that was fitted for a space; None if there is none."""
    note = correction_notes(table).get(space.space_hash)
    return None if note is None else note.correction


def keep_correction(
    space: SearchSpace, table: LatencyTable, correction: Correction, **facts: Any
) -> None:
    """Append a correction; what was requested is copied from the one before, unless given."""
    before = correction_notes(table).get(space.space_hash)
    asked = ("rounds", "least_ms", "last_session")
    kept = {} if before is None else {name: getattr(before, name) for name in asked}
    note = CorrectionNote(space.space_hash, correction, **{**kept, **facts})
    table.append_note(_OWNER, asdict(note))


def steadiness_of(table: LatencyTable) -> Steadiness:
    """How steady the machine of a table was; held-out networks do not count."""
    asked = max((note.rounds for note in correction_notes(table).values()), default=0)
    return table.steadiness(dict.fromkeys((BLOCK, NETWORK, WINNER, WITH_HEAD), asked))


def describe(table: LatencyTable) -> str:
    """Describe a table: device, steadiness of the machine, prediction errors.

    Raises:
        UserError: A session shares nothing with the others, or a correction is damaged.
    """
    notes = correction_notes(table)
    measured = describe_table(table, steadiness_of(table), _NOUNS)
    medians_ms = [table.median_ms(key) for key in table.keys(NETWORK)]
    if len(medians_ms) > 1:  # the smallest and the largest of a space are among them
        ends = f"{min(medians_ms):.3f} to {max(medians_ms):.3f} ms"
        measured.append(f"Its whole networks took {ends}.")
    whole = sorted(head_notes(table).items(), key=lambda item: str(item[0]))
    for (_, head), _ in whole:
        medians_ms = [
            table.median_ms(key)
            for key in table.keys(WITH_HEAD)
            if table.about(key).get("head") == head.to_dict()
        ]
        if medians_ms:
            ends = f"{min(medians_ms):.3f} to {max(medians_ms):.3f} ms"
            measured.append(f"Its whole models with the {head} took {ends}.")
    if not notes:
        text = "No correction is fitted to it yet; `edgesearch profile` fits one."
        return "\n".join([*measured, text])
    corrections = [
        _describe_fit("Predictions", note.space_hash, note.correction, note.validation)
        for note in notes.values()
    ]
    heads = [
        _describe_fit(
            f"Predictions of whole models with the {head}", space_hash, note.fit, note.validation
        )
        for (space_hash, head), note in whole
    ]
    return "\n".join([*measured, *corrections, *heads])


def _describe_fit(
    what: str, space_hash: str, fit: Correction | HeadFit, checked: Mapping[str, Any] | None
) -> str:
    networks = f"{fit.networks} network{'s' if fit.networks != 1 else ''}"
    text = (
        f"{what} for space {space_hash[:8]} are fitted to {networks}: mean error {fit.fit_mape:.1%}"
    )
    if fit.loo_mape is not None:
        text += f", leave-one-out error {fit.loo_mape:.1%}"
    if checked is None:
        return f"{text}; not validated on held-out networks yet."
    judged = "held out" if checked["held_out"] else "of these, measured again"
    return (
        f"{text}; {checked['mape']:.1%} (worst {checked['worst']:.1%}) on {checked['n']} {judged}."
    )


def write_csv(table: LatencyTable, predicted_ms: Mapping[str, float] | None = None) -> Path:
    """Write a table beside it as CSV, with predicted medians by key; without as `<name>.table.csv`.

    Raises:
        FileError: The file cannot be written.
    """
    ending = "csv" if predicted_ms is not None else "table.csv"
    path = table.path.with_name(f"{table.path.name.removesuffix('.jsonl')}.{ending}")
    write_bytes(path, table_csv(table, predicted_ms).encode())
    return path


def table_digest(path: Path, head: TaskHead | None = None) -> str:
    """Digest of the blocks and networks of a table; changes if they are measured again.

    Networks with a head count if it is `head`. Corrections, winners and anchors do not count, nor
    does a repeated error of a workload.
    """
    (_, header), *lines = read_table(path)
    digest, failed = hashlib.sha256(_plain(header)), set()
    for _, values in lines:
        kind, counts = values.get("kind"), False
        if kind == WITH_HEAD and head is not None:
            counts = values["key"].split("/")[2] == head.key  # kind/space/head/architecture
        if (counts or kind in (BLOCK, NETWORK)) and not values.get("anchor"):
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
