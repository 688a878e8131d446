"""The latency table: measurements of a device, and statistics of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from devices.fingerprint import Fingerprint
from devices.spec import DeviceSpec
from profilers import statistics
from profilers.errors import MissingKeyError, TableError
from profilers.latency_record import LatencyRecord
from profilers.measure import KeyHistory, MeasureConfig
from profilers.sessions import (
    SessionFacts,
    all_disturbed_stretches,
    by_session,
    counts,
    looks_by_session,
    session_scales,
    undisturbed,
    what_was_wanted,
)
from profilers.steadiness import UNSETTLED_SHARE, WIDE_P95, Steadiness, base_level_ms
from profilers.table_file import open_table, read_table, table_lines
from profilers.table_identity import Mismatch, check_identity, machine_mismatches, read_identity
from profilers.workload import OVERHEAD_KEY, OWN_KEYS, REFERENCE_KEY


@dataclass(frozen=True)
class Note:
    """A note in the table whose values only its owner, a package, interprets."""

    owner: str
    values: Mapping[str, Any]
    line: int


@dataclass(frozen=True)
class Slowdown:
    """Latency in the last session relative to the first.

    Attributes:
        work: Median ratio over the networks and blocks measured in both.
        reference: Ratio of the reference workload.
    """

    work: float
    reference: float


class LatencyTable:
    """Measurements of one device, read from a file; see `LatencyTable.load`.

    All figures are relative to the first session: samples of later sessions are scaled by the
    speed difference of what both have measured (reference workload, anchors, blocks). Medians and
    percentiles are scaled by the difference in medians, which includes how busy the machine was.
    Methods raise `MissingKeyError` for a key that was not measured.

    Attributes:
        path: The file.
        spec: The device.
        fingerprint: Machine and runtime when the table was created.
        accepted: Accepted differences from the expected device.
        last_session: Number of the last session; 0 before the first.
    """

    def __init__(
        self,
        path: Path,
        spec: DeviceSpec,
        fingerprint: Fingerprint,
        accepted: tuple[Mismatch, ...] = (),
    ) -> None:
        self.path = path
        self.spec = spec
        self.fingerprint = fingerprint
        self.accepted = accepted
        self.last_session = 0
        self._records: dict[str, list[LatencyRecord]] = {}
        self._anchors: dict[str, list[LatencyRecord]] = {}
        self._errors: dict[str, LatencyRecord] = {}
        self._notes: list[Note] = []
        self._facts: dict[int, SessionFacts] = {}
        self._stretches: dict[int, int] = {}
        # Computed on first use.
        self._scales: dict[bool, dict[int, float]] = {}
        self._overheads: dict[frozenset[int], float] = {}
        self._disturbed: frozenset[tuple[int, int]] | None = None

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        expect: DeviceSpec | None = None,
        expect_fingerprint: Fingerprint | None = None,
        accept: Collection[str] = (),
    ) -> LatencyTable:
        """Read a table.

        Args:
            path: The file.
            expect: The device that it must be of.
            expect_fingerprint: The machine and runtime version that it must be of.
            accept: Fields in which it may differ from these; see `accepted`.

        Raises:
            FileError: It cannot be read, is damaged or is no latency table.
            TableError: Its header names no device.
            TableMismatchError: It is of another device; names the field.
        """
        (_, header), *lines = read_table(path)
        spec, fingerprint = read_identity(path, header)
        accepted = check_identity(
            path, (spec, expect), (fingerprint, expect_fingerprint), accept=accept
        )
        table = cls(path, spec, fingerprint, accepted)
        file = table_lines(path)
        for number, values in lines:
            with file.line(number):
                table.add(values, number)
        return table

    def add(self, values: Mapping[str, Any], line: int = 0) -> None:
        """Add a line to the table in memory, not to the file.

        Raises:
            ValueError: It is no line of a table; or a KeyError, TypeError or ProfilerError.
        """
        kind = values.get("type")
        if kind == "note":
            own = {name: value for name, value in values.items() if name not in ("type", "owner")}
            self._notes.append(Note(values["owner"], own, line))
        elif kind == "merge":
            facts = SessionFacts(values["session"], values["source"])
            # Notes were derived from the table without the merged session.
            self._notes.clear()
            self.last_session = max(self.last_session, facts.number)
            # A later merge may add more lines of the same session.
            self._facts.setdefault(facts.number, facts)
        elif kind == "session":
            facts = SessionFacts(
                number=values["session"],
                began=values.get("began"),
                fingerprint=values["fingerprint"],
                config=MeasureConfig(**values["measure"]),
            )
            before = self._facts.get(facts.number, facts)
            self._facts[facts.number] = replace(facts, merged_from=before.merged_from)
        else:
            self._add_record(LatencyRecord.from_dict(values))

    def _add_record(self, record: LatencyRecord) -> None:
        self.last_session = max(self.last_session, record.session)
        if record.error is not None:
            self._errors[record.key] = record
            return
        if record.key == REFERENCE_KEY:
            self._stretches[record.session] = self._stretches.get(record.session, 0) + 1
        record = replace(record, stretch=self._stretches.get(record.session, 0))
        if record.anchor:
            self._anchors.setdefault(record.key, []).append(record)
        else:
            self._errors.pop(record.key, None)
            self._records.setdefault(record.key, []).append(record)

    @property
    def errors(self) -> dict[str, str]:
        """Errors by key, of keys that were not measured since."""
        return {key: record.error or "" for key, record in self._errors.items()}

    @property
    def sessions(self) -> tuple[SessionFacts, ...]:
        """Facts of the sessions that measured something, in order."""
        numbers = sorted({record.session for record in self._all_records()})
        return tuple(self._facts.get(number, SessionFacts(number)) for number in numbers)

    def notes(self, owner: str) -> list[Note]:
        """The notes of an owner; a merge invalidates the notes before it."""
        return [note for note in self._notes if note.owner == owner]

    def append_note(self, owner: str, values: Mapping[str, Any]) -> None:
        """Append a note, plain JSON values, to the file.

        Raises:
            FileError: The file cannot be written, or another process is writing it.
        """
        note = {"type": "note", "owner": owner, **values}
        with open_table(self.path) as file:
            file.append(note)
        self.add(note)

    def keys(self, *kinds: str) -> list[str]:
        """The keys of some kinds (blocks by default) that have samples, in order of appearance."""
        kinds = kinds or ("block",)
        return [key for key, records in self._records.items() if records[0].kind in kinds]

    def kinds(self) -> dict[str, str]:
        """The kind of each key that was measured or failed."""
        failed = {key: record.kind for key, record in self._errors.items()}
        return {**{key: records[0].kind for key, records in self._records.items()}, **failed}

    def about(self, key: str) -> Mapping[str, Any]:
        """The data of a key's workload when it was first measured."""
        return self._found(key)[0].about or {}

    def rounds(self, key: str) -> int:
        """Number of a key's rounds that count; 0 if it is unknown."""
        return len(self._counting(key)) if key in self._records else 0

    def history(self, key: str) -> KeyHistory:
        """The rounds of a key so far; empty if it is unknown."""
        records = self._records.get(key, [])
        minima_ms = tuple(
            record.fastest_ms * self.session_scale(record.session)
            for record in records
            if counts(record, self._disturbed_stretches())
        )
        return KeyHistory(minima_ms, len(records))

    def steadiness(self, asked_rounds: Mapping[str, int] | None = None) -> Steadiness:
        """How steady the machine was in all sessions.

        Args:
            asked_rounds: Rounds last asked for, by kind of key. For other kinds: the fewest rounds
                that a session which measured the key asked for.
        """
        looks = looks_by_session(self._records.get(REFERENCE_KEY, ()))
        levels_ms = [[look.level_ms for look in of_session] for of_session in looks.values()]
        relative = [r for levels in levels_ms for r in np.divide(levels, base_level_ms(levels))]
        others = [
            look.others for of_session in looks.values() for look in of_session if look.others
        ]
        asked, kinds = asked_rounds or {}, self.kinds()
        keys = [key for key in self._records if key not in OWN_KEYS]
        wanted = {key: self._wanted(key, asked.get(kinds[key], 0)) for key in keys}
        histories = {key: replace(self.history(key), attempts=0) for key in keys}
        unsettled = tuple(key for key in keys if wanted[key].lacks_rounds(histories[key]))
        p95_ratios = [self.percentile_ms(key, 95) / self.median_ms(key) for key in keys]
        p95_ratio = float(np.median(p95_ratios)) if keys else 1.0
        records = [record for key in keys for record in self._records[key]]
        is_sure = len(unsettled) <= UNSETTLED_SHARE * len(keys)
        return Steadiness(
            rounds=len(records),
            discarded=len(records) - sum(len(each.minima_ms) for each in histories.values()),
            interrupted=sum(record.waited_ms is not None for record in records),
            others=float(np.mean(others)) if others else None,
            reference_spread=float(np.quantile(relative, 0.95)) - 1 if relative else 0.0,
            p95_ratio=p95_ratio,
            keys=len(keys),
            unsettled=unsettled,
            short=sum(wanted[key].is_precise(histories[key]) for key in unsettled),
            interval=max((each.interval for each in wanted.values()), default=0.0),
            settled=is_sure and p95_ratio < WIDE_P95,
        )

    def _wanted(self, key: str, asked_rounds: int) -> MeasureConfig:
        numbers = {record.session for record in self._records[key]}
        facts = [self._facts.get(number, SessionFacts(number)) for number in sorted(numbers)]
        return what_was_wanted([each.config for each in facts], asked_rounds)

    def _overhead_of(self, sessions: frozenset[int]) -> float:
        """Fixed cost of a run in some sessions; 0 if it was not measured there."""
        if sessions not in self._overheads:
            counting = self._counting(OVERHEAD_KEY) if OVERHEAD_KEY in self._records else ()
            rounds = self._scaled([record for record in counting if record.session in sessions])
            self._overheads[sessions] = statistics.low_quantile_ms(rounds) if rounds else 0.0
        return self._overheads[sessions]

    def low_quantile_ms(self, key: str, *, with_overhead: bool = False) -> float:
        """Undisturbed latency without the fixed cost of a run: it adds up over a network's blocks.

        The fixed cost, which `with_overhead` includes, is taken from the sessions that measured the
        key, so that later sessions of other keys do not change the result.
        """
        low_ms = statistics.low_quantile_ms(self._rounds(key))
        if with_overhead:
            return low_ms
        sessions = frozenset(record.session for record in self._records[key])
        return max(0.0, low_ms - self._overhead_of(sessions))

    def cold_quantile_ms(self, key: str) -> float | None:
        """Undisturbed latency of a run whose weights are not in the caches.

        Except for a fixed cost of each block, it adds up over the blocks of a network that is
        larger than the caches. None if it was not measured.
        """
        known = [record for record in self._found(key) if record.cold_ms is not None]
        first = [
            [record.cold_ms * self.session_scale(record.session)]  # type: ignore[operator]
            for record in undisturbed(known, self._disturbed_stretches())
        ]
        return statistics.low_quantile_ms(first) if first else None

    def median_ms(self, key: str) -> float:
        """The median of a run."""
        return statistics.median_ms(self._rounds(key, of_medians=True))

    def percentile_ms(self, key: str, q: float) -> float:
        """A percentile of a run; `q` is between 0 and 100."""
        return statistics.percentile_ms(self._rounds(key, of_medians=True), q)

    def median_interval_ms(self, key: str) -> tuple[float, float]:
        """95 % confidence interval of `median_ms`."""
        return statistics.median_interval_ms(self._rounds(key, of_medians=True))

    def percentile_interval_ms(self, key: str, q: float) -> tuple[float, float]:
        """95 % confidence interval of `percentile_ms`; `q` is above 0, below 100."""
        return statistics.percentile_interval_ms(self._rounds(key, of_medians=True), q)

    def samples_ms(self, key: str) -> dict[tuple[int, int], list[float]]:
        """Samples of a key's rounds that count, by session and round."""
        samples_ms = self._rounds(key)
        numbers = [(record.session, record.round or 0) for record in self._counting(key)]
        return dict(zip(numbers, samples_ms, strict=True))

    def median_ratios(
        self, keys: Sequence[str], *, with_anchors: bool = True
    ) -> list[tuple[float, float]]:
        """Low quantile in ms of whole networks, and ratio of median to low quantile.

        A network counts once in each session that measured it, with anchors also where it was one:
        more hours of the machine characterise it better. Like all figures they are relative to the
        first session. They are not weighted by rounds, most of which are spent on slow winners.
        """
        found = []
        anchors = [self._anchors[key] for key in keys if with_anchors and key in self._anchors]
        for records in [*(self._found(key) for key in keys), *anchors]:
            counting = undisturbed(records, self._disturbed_stretches())
            for of_session in by_session(counting).values():
                for same in of_session.values():
                    low_ms = statistics.low_quantile_ms(self._scaled(same))
                    middle_ms = statistics.median_ms(self._scaled(same, of_medians=True))
                    found.append((low_ms, middle_ms / low_ms))
        return found

    def slowdown(self) -> Slowdown | None:
        """Compare the last session with the first, by the fastest run of each key.

        A busy machine slows down most runs of a session, and large networks more than the small
        reference, but rarely all of the hundreds of runs of a key.

        Returns:
            None if nothing is comparable: a single session, sessions on two machines, or the
            reference or any other key not in both.
        """
        sessions = self.sessions
        if len(sessions) < 2:
            return None
        if machine_mismatches(sessions[0].fingerprint, sessions[-1].fingerprint):
            return None
        found = by_session(self._all_records())
        former, latter = (
            {key: min(r.fastest_ms for r in of_key) for key, of_key in found[each.number].items()}
            for each in (sessions[0], sessions[-1])
        )
        ratios = {key: latter[key] / former[key] for key in latter.keys() & former.keys()}
        reference = ratios.pop(REFERENCE_KEY, None)
        ratios.pop(OVERHEAD_KEY, None)  # too short to be informative
        if reference is None or not ratios:
            return None
        return Slowdown(float(np.median(list(ratios.values()))), reference)

    def session_scale(self, session: int, *, of_medians: bool = False) -> float:
        """The factor that makes a session's samples comparable with the first one's.

        Args:
            session: Its number.
            of_medians: Whether medians are compared, not the undisturbed latencies.

        Raises:
            TableError: The session shares no key with earlier ones, not even the reference.
        """
        if of_medians not in self._scales:
            single = self.last_session == 1 or not self._records
            disturbed, records = self._disturbed_stretches(), self._all_records()
            self._scales[of_medians] = (
                {1: 1.0} if single else session_scales(records, disturbed, of_medians=of_medians)
            )
        scales = self._scales[of_medians]
        if session not in scales:
            raise TableError(
                f"the reference workload of each session in {self.path}",
                f"session {session}, which shares neither it nor another key",
                "Remove the lines of this session, or move the table away, and measure again.",
            )
        return scales[session]

    def _all_records(self) -> Iterable[LatencyRecord]:
        return chain(*self._records.values(), *self._anchors.values())

    def _found(self, key: str) -> list[LatencyRecord]:
        if key not in self._records:
            failed = self._errors.get(key)
            raise MissingKeyError(
                f"a measurement of {key!r} in {self.path}",
                "none" if failed is None else f"an error: {failed.error}",
                "Run `edgesearch profile` with the same configuration: it measures what is "
                "missing.",
            )
        return self._records[key]

    def _rounds(self, key: str, *, of_medians: bool = False) -> list[list[float]]:
        """The samples of a key by round, scaled to the first session."""
        self._found(key)
        return self._scaled(self._counting(key), of_medians=of_medians)

    def _scaled(
        self, records: Sequence[LatencyRecord], *, of_medians: bool = False
    ) -> list[list[float]]:
        numbers = {record.session for record in records}
        scales = {number: self.session_scale(number, of_medians=of_medians) for number in numbers}
        return [[ms * scales[record.session] for ms in record.net_ms] for record in records]

    def _counting(self, key: str) -> Sequence[LatencyRecord]:
        """The records that count; all records if none does."""
        return undisturbed(self._records[key], self._disturbed_stretches())

    def _disturbed_stretches(self) -> frozenset[tuple[int, int]]:
        if self._disturbed is None:
            looks = looks_by_session(self._records.get(REFERENCE_KEY, ()))
            self._disturbed = all_disturbed_stretches(looks, self._facts)
        return self._disturbed
