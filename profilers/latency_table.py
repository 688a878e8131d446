"""The latency table: what was measured on a device, and figures from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from devices.fingerprint import Fingerprint
from devices.spec import DeviceSpec
from profilers import statistics
from profilers.errors import MissingKeyError, ProfilerError, TableError
from profilers.latency_record import NETWORK_KINDS, LatencyRecord
from profilers.measure import KeyHistory, MeasureConfig
from profilers.network_measurement import NetworkMeasurement
from profilers.sessions import (
    SessionFacts,
    all_disturbed_stretches,
    fastest_runs_ms,
    reference_levels_ms,
    session_scales,
    undisturbed,
    what_was_wanted,
)
from profilers.steadiness import UNSETTLED_SHARE, Steadiness, base_level_ms
from profilers.table_file import TableFile, read_table
from profilers.table_identity import Mismatch, check_identity, read_identity
from profilers.table_lines import read_correction, read_merge, read_session
from profilers.workload import OVERHEAD_KEY, REFERENCE_KEY


class LatencyTable:
    """Measurements of one device, read from a file; see `LatencyTable.load`.

    All figures are those of the first session: samples of a later one are multiplied by how much
    faster what both have measured was in the first: the reference workload, and anchors or blocks.

    Attributes:
        path: The file.
        spec: The device.
        fingerprint: What was there when the table was begun.
        accepted: What it differs in from what was expected of it, and was accepted.
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
        self._records: dict[str, list[LatencyRecord]] = {}
        self._errors: dict[str, LatencyRecord] = {}
        self._corrections: dict[str, dict[str, Any]] = {}
        self._scales: dict[int, float] = {}
        self._overheads: dict[frozenset[int], float] = {}
        self._disturbed: frozenset[tuple[int, int]] | None = None
        self._configs: dict[int, MeasureConfig] = {}
        self._facts: dict[int, SessionFacts] = {}
        self._stretches: dict[int, int] = {}
        self._last_session = 0

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
            accept: Fields in which it may differ from them; see `accepted`.

        Raises:
            TableError: If it cannot be read, is damaged or is no latency table.
            TableMismatchError: If it is of another device; names the field.
        """
        header, lines = read_table(path)
        spec, fingerprint = read_identity(path, header)
        accepted = check_identity(
            path, (spec, expect), (fingerprint, expect_fingerprint), accept=accept
        )
        table = cls(path, spec, fingerprint, accepted)
        for number, values in lines:
            try:
                table.add(values)
            except (KeyError, TypeError, ValueError, ProfilerError) as error:
                raise TableError(
                    f"{path} must hold measurements and corrections",
                    f"line {number}: {error}",
                    "Remove this line: what is missing is measured again.",
                ) from error
        return table

    @property
    def errors(self) -> dict[str, str]:
        """Why keys could not be measured, by key; of those that were not measured since."""
        return {key: record.error or "" for key, record in self._errors.items()}

    @property
    def last_session(self) -> int:
        """Number of the last session; 0 before the first."""
        return self._last_session

    @property
    def sessions(self) -> tuple[SessionFacts, ...]:
        """What is known of the sessions that measured something, in their order."""
        numbers = {record.session for records in self._records.values() for record in records}
        return tuple(self._facts.get(number, SessionFacts(number)) for number in sorted(numbers))

    @property
    def overhead_ms(self) -> float:
        """The fixed cost of a run over all sessions; 0 if it was not measured."""
        return self._overhead_of(frozenset(range(1, self._last_session + 1)))

    def _overhead_of(self, sessions: frozenset[int]) -> float:
        """The fixed cost of a run in some sessions; 0 if it was not measured there."""
        if sessions not in self._overheads:
            rounds = self._rounds(OVERHEAD_KEY, sessions) if OVERHEAD_KEY in self._records else []
            self._overheads[sessions] = statistics.low_quantile_ms(rounds) if rounds else 0.0
        return self._overheads[sessions]

    def keys(self, kind: str = "block") -> list[str]:
        """Return the keys of a kind that have samples, in the order of their first ones."""
        return [key for key, records in self._records.items() if records[0].kind == kind]

    def kinds(self) -> dict[str, str]:
        """Return the kind of each key that was measured or failed, by key."""
        failed = {key: record.kind for key, record in self._errors.items()}
        return {**{key: records[0].kind for key, records in self._records.items()}, **failed}

    def rounds(self, key: str) -> int:
        """Return the number of rounds of a key that count; 0 if it is unknown."""
        return len(self._counting(key)) if key in self._records else 0

    def history(self, key: str) -> KeyHistory:
        """Return what a key was measured so far; empty if it is unknown."""
        if key not in self._records:
            return KeyHistory()
        minima_ms = tuple(
            min(record.samples_ms or ()) * self.session_scale(record.session)
            for record in self._records[key]
            if (record.session, record.stretch) not in self._disturbed_stretches()
        )
        return KeyHistory(minima_ms, len(self._records[key]))

    def steadiness(self) -> Steadiness:
        """Return how steady the machine was in all sessions."""
        levels_ms = reference_levels_ms(self._records)
        base_ms = {session: base_level_ms(levels) for session, levels in levels_ms.items()}
        relative = [
            value / base_ms[session] for session, levels in levels_ms.items() for value in levels
        ]
        keys = [key for kind in ("block", *NETWORK_KINDS) for key in self.keys(kind)]
        unsettled = tuple(
            key
            for key in keys
            if self._wanted(key).lacks_rounds(replace(self.history(key), attempts=0))
        )
        return Steadiness(
            stretches=sum(map(len, levels_ms.values())),
            disturbed=len(self._disturbed_stretches()),
            reference_spread=float(np.quantile(relative, 0.95)) - 1 if relative else 0.0,
            keys=len(keys),
            unsettled=unsettled,
            settled=len(unsettled) <= UNSETTLED_SHARE * len(keys),
        )

    def _wanted(self, key: str) -> MeasureConfig:
        """What a key has to reach; a correction says how many rounds were asked for by `profile`.

        That says nothing of networks held out, which are another command's.
        """
        records = self._records[key]
        corrections = self._corrections.values() if records[0].kind != "validation" else ()
        asked = max((values.get("rounds", 0) for values in corrections), default=0)
        return what_was_wanted({record.session for record in records}, self._configs, asked)

    def low_quantile_ms(self, key: str) -> float:
        """Return what the work itself takes, undisturbed and without the fixed cost of a run.

        This is the figure that adds up over the blocks of a network. The fixed cost is that of the
        sessions in which the key was measured, so that later sessions of others change nothing.

        Raises:
            MissingKeyError: If the key was not measured.
        """
        low_ms = statistics.low_quantile_ms(self._rounds(key))
        sessions = frozenset(record.session for record in self._records[key])
        return max(0.0, low_ms - self._overhead_of(sessions))

    def cold_quantile_ms(self, key: str) -> float | None:
        """Return what a run takes, undisturbed, whose weights are not in the caches.

        This is the figure that adds up over the blocks of a network that is larger than the
        caches, except for a fixed cost of each block.

        Returns:
            None if it was not measured.

        Raises:
            MissingKeyError: If the key was not measured.
        """
        self._rounds(key)
        first = [
            record.cold_ms * self.session_scale(record.session)
            for record in self._counting(key)
            if record.cold_ms is not None
        ]
        return statistics.low_quantile_of_first_ms(first) if first else None

    def median_ms(self, key: str) -> float:
        """Return the median of a run.

        Raises:
            MissingKeyError: If the key was not measured.
        """
        return statistics.median_ms(self._rounds(key))

    def percentile_ms(self, key: str, q: float) -> float:
        """Return a percentile of a run; `q` is between 0 and 100.

        Raises:
            MissingKeyError: If the key was not measured.
        """
        return statistics.percentile_ms(self._rounds(key), q)

    def median_interval_ms(self, key: str) -> tuple[float, float]:
        """Return where the median of a run is with 95 % confidence.

        Raises:
            MissingKeyError: If the key was not measured.
        """
        return statistics.median_interval_ms(self._rounds(key))

    def percentile_interval_ms(self, key: str, q: float) -> tuple[float, float]:
        """Return where a percentile of a run is with 95 % confidence; `q` is above 0, below 100.

        Raises:
            MissingKeyError: If the key was not measured.
        """
        return statistics.percentile_interval_ms(self._rounds(key), q)

    def samples_ms(self, key: str) -> dict[tuple[int, int], list[float]]:
        """Return the samples of the rounds of a key that count, by session and round.

        Raises:
            MissingKeyError: If the key was not measured.
        """
        samples_ms = self._rounds(key)
        numbers = [(record.session, record.round or 0) for record in self._counting(key)]
        return dict(zip(numbers, samples_ms, strict=True))

    def fastest_runs_ms(self) -> dict[int, dict[str, float]]:
        """Return the fastest run of each key by session, as it was measured there."""
        return fastest_runs_ms(self._records)

    def networks(self, space_hash: str, kind: str = "network") -> list[NetworkMeasurement]:
        """Return the whole networks of a search space that were measured.

        Args:
            space_hash: Hash of the search space.
            kind: `network` for those that predictions are fitted to, `validation` for others.
        """
        return [
            NetworkMeasurement(
                key=key,
                architecture=self._records[key][0].architecture or {},
                low_ms=statistics.low_quantile_ms(self._rounds(key)),
                median_ms=self.median_ms(key),
                p95_ms=self.percentile_ms(key, 95),
                interval_ms=self.median_interval_ms(key),
            )
            for key in self.keys(kind)
            if self._records[key][0].space_hash == space_hash
        ]

    def session_scale(self, session: int) -> float:
        """Return the factor that makes a session's samples comparable with the first one's.

        Raises:
            TableError: If the session shares nothing with earlier ones, not even the reference
                workload.
        """
        if not self._scales:
            # With one session there is nothing to compare with, and no need to.
            single = not self._records or self._last_session == 1
            self._scales = (
                {1: 1.0} if single else session_scales(self._records, self._disturbed_stretches())
            )
        if session not in self._scales:
            raise TableError(
                f"{self.path} must hold the reference workload of each session",
                f"session {session} without it, or anything else to compare it by",
                "Remove the lines of this session, or move the table away, and measure again.",
            )
        return self._scales[session]

    def correction(self, space_hash: str) -> dict[str, Any] | None:
        """Return the last correction for a search space; None if there is none."""
        found = self._corrections.get(space_hash)
        return None if found is None else dict(found)

    @property
    def corrections(self) -> dict[str, dict[str, Any]]:
        """The last correction of each search space, by the space's hash."""
        return {space_hash: dict(values) for space_hash, values in self._corrections.items()}

    def append_correction(self, correction: Mapping[str, Any]) -> None:
        """Append a correction to the file.

        Args:
            correction: Plain JSON values, `space_hash` among them.

        Raises:
            TableError: If the file cannot be written, or another process is writing it.
        """
        values = {"type": "correction", **correction}
        with TableFile(self.path) as file:
            file.append(values)
            file.sync()
        self.add(values)

    def add(self, values: Mapping[str, Any]) -> None:
        """Take in a line of the file, which is not written.

        Raises:
            ValueError: If it is no line of a table; or a KeyError, TypeError or ProfilerError.
        """
        if values.get("type") == "correction":
            correction = read_correction(values)
            self._corrections[correction["space_hash"]] = correction
            return
        if values.get("type") == "merge":
            merged = read_merge(values)
            # What was fitted before knows nothing of what follows.
            self._corrections.clear()
            self._last_session = max(self._last_session, merged.number)
            # A session that is only continued stays what it is.
            self._facts.setdefault(merged.number, merged)
            return
        if values.get("type") == "session":
            facts, config = read_session(values)
            self._configs[facts.number] = config
            before = self._facts.get(facts.number, facts)
            self._facts[facts.number] = replace(facts, merged_from=before.merged_from)
            return
        record = LatencyRecord.from_dict(values)
        self._last_session = max(self._last_session, record.session)
        if record.error is not None:
            self._errors[record.key] = record
        else:
            self._errors.pop(record.key, None)
            if record.key == REFERENCE_KEY:
                self._stretches[record.session] = self._stretches.get(record.session, 0) + 1
            record = replace(record, stretch=self._stretches.get(record.session, 0))
            self._records.setdefault(record.key, []).append(record)

    def _rounds(self, key: str, sessions: frozenset[int] | None = None) -> list[list[float]]:
        """Return the samples of a key, round by round, as if all were of the first session.

        Those of other sessions than the given ones, if any are given, are left out.
        """
        if key not in self._records:
            failed = self._errors.get(key)
            found = "nothing of it" if failed is None else f"an error: {failed.error}"
            raise MissingKeyError(
                f"a measurement of {key!r} in {self.path}",
                found,
                "Run `edgesearch profile` with the same configuration: it measures what is "
                "missing.",
            )
        return [
            [sample * self.session_scale(record.session) for sample in record.samples_ms or ()]
            for record in self._counting(key)
            if sessions is None or record.session in sessions
        ]

    def _counting(self, key: str) -> Sequence[LatencyRecord]:
        """Records of when the machine was not disturbed; all if it always was."""
        return undisturbed(self._records[key], self._disturbed_stretches())

    def _disturbed_stretches(self) -> frozenset[tuple[int, int]]:
        if self._disturbed is None:
            self._disturbed = all_disturbed_stretches(self._records, self._configs)
        return self._disturbed
