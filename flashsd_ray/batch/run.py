"""The driver of a run: passes through the corpus until every unit is in the output.

What is in the output is done; nothing else is remembered. A pass may lose parcels with the workers that held them: what
is missing is planned again, one row at a time, and a row under which workers die again and again becomes an error row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from flashsd_ray.batch.claims import Claim, Claims, SoleDriver
from flashsd_ray.batch.gathering import Gatherer
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.parcels import Head
from flashsd_ray.batch.pipeline import Pass, captioned
from flashsd_ray.batch.planning import Selection, UnitSource, may_have_work
from flashsd_ray.batch.rows import Clip, Outcome
from flashsd_ray.batch.tallies import Progress, Summary, Tally
from flashsd_ray.errors import FlashSDError

WORKER_DIED = "WorkerDied"
POLL_S = 1.0  # between two looks at units of other drivers
CAREFUL_PASSES = 2  # a row may miss one of them because the worker was down that another row had killed

log = logging.getLogger(__name__)


class BatchError(FlashSDError):
    """A run cannot go on."""


class Source(UnitSource, Protocol):
    """An input."""

    def count(self) -> int:
        """How many rows there are."""
        ...


class UnitWriter(Protocol):
    """An output; a unit is there as a whole or not at all."""

    def write(self, unit_id: str, outcomes: Sequence[Outcome]) -> None:
        """The unit holds these outcomes and no others."""
        ...

    def finished(self) -> Iterator[str]:
        """Ids of the units that are there."""
        ...

    def read(self, unit_id: str) -> list[Outcome]:
        """What a unit holds."""
        ...


@dataclass(slots=True)
class _Ended:
    """How a pass ended."""

    notes: Mapping[str, Any] | None = None  # of planning; None: they were lost
    gatherer: Gatherer = field(default_factory=Gatherer)

    @property
    def is_complete(self) -> bool:
        """Whether every unit that was planned came out."""
        return self.notes is not None and self.notes["checksum"] == self.gatherer.checksum


@dataclass(slots=True, kw_only=True)
class Run:
    """One run over a corpus."""

    job: Job
    source: Source
    writer: UnitWriter
    claims: Claims = field(default_factory=SoleDriver)
    listener: Callable[[Progress], None] = lambda progress: None
    max_errors: int | None = None  # more stop the run; None: any number may happen
    retries_failed: bool = False  # only rows that failed before are captioned, and replaced
    is_checked: bool = True  # whether an input that has changed stops the run
    tally: Tally = field(default_factory=Tally)
    _num_repeated: int = 0
    _stopped: str = ""
    _finished: frozenset[str] | None = None  # units in the output, as they were listed last; None: look again
    _retried: Mapping[str, frozenset[str]] | None = None  # ids of rows by unit; None: whatever is not in the output
    _seen: dict[str, dict[str, list[Outcome]]] = field(default_factory=dict)  # rows of careful passes, by unit

    def __call__(self) -> Summary:
        """Everything is in the output, or the summary says why not.

        Raises:
            BatchError: lanes cannot begin.
            ConfigError: the input holds other rows than it did when its output was begun.
            UnavailableError: the ledger's Redis does not answer.
        """
        self._list()
        with _counting(self.source, self.tally), _heartbeat(self.claims, self.job.config.batch.lease_s):
            self._run()
        return self._summary()

    def nothing(self) -> Summary | None:
        """How the run ends where there is nothing to do, which needs no lane; None where there may be something.

        Raises as the run itself.
        """
        self._list()
        rows_per_unit = self.job.config.batch.rows_per_unit
        if may_have_work(self.source, self._selection(), rows_per_unit):
            return None
        self.claims.release()
        return self._summary()

    def _list(self) -> None:
        """What is in the output is known; it is listed once before the first pass."""
        if self._finished is not None:
            return
        self._finished = frozenset(self.writer.finished())
        self._retried = failed_rows(self.writer, self._finished) if self.retries_failed else None
        self.tally.begin(self.job.config.batch.rows_per_unit, len(self._finished), self._retried)

    def _selection(self) -> Selection:
        finished = self._finished if self._finished is not None else frozenset(self.writer.finished())
        return Selection(finished=finished, retried=self._retried, is_checked=self.is_checked)

    def _summary(self) -> Summary:
        return Summary(
            progress=self.tally.progress(),
            waiting_share=self.tally.waiting_share,
            stage_s=dict(self.tally.stages),
            num_copies=self.tally.num_copies,
            num_repeated_passes=self._num_repeated,
            stopped=self._stopped,
        )

    def _run(self) -> None:
        num_careful = 0
        while not self._stopped:
            selection = self._selection()
            self._finished = None  # the next pass looks again
            ended = self._pass(self._work(selection, is_careful=num_careful > 0), self._retried or {})
            if self._retried is not None:
                complete = ended.gatherer.complete
                self._retried = {unit_id: rows for unit_id, rows in self._retried.items() if unit_id not in complete}
            if not ended.is_complete and not self._stopped:
                if num_careful:
                    self._remember(ended)
                if num_careful < CAREFUL_PASSES:
                    self._num_repeated += 1
                    num_careful += 1
                    continue
                self._bury()
            if not self._others_left_some(ended):
                return
            num_careful = 0

    def _work(self, selection: Selection, *, is_careful: bool) -> Pass:
        return Pass(job=self.job, source=self.source, selection=selection, claims=self.claims, is_careful=is_careful)

    def _pass(self, work: Pass, retried: Mapping[str, frozenset[str]]) -> _Ended:
        """What came out is in the output."""
        ended = _Ended()
        with closing(captioned(work)) as answered:
            try:
                for head, outcomes in answered:
                    self._take(ended, head, outcomes, retried)
                    if self._stopped:
                        break
            except RayError:
                log.exception("a pass was lost")  # as far as it had not come out; that is planned again
        return ended

    def _take(
        self, ended: _Ended, head: Head, outcomes: Sequence[Outcome], retried: Mapping[str, frozenset[str]]
    ) -> None:
        if head.notes.get("problem"):
            raise BatchError(head.notes["problem"])
        if not head.unit_id:
            ended.notes = head.notes
            return
        self.tally.take_notes(head.notes)
        complete = ended.gatherer.add(head, outcomes)
        if complete is not None:
            self._write(head.unit_id, head.num_clips, complete, retried.get(head.unit_id))
        self.listener(self.tally.progress())

    def _write(
        self, unit_id: str, num_clips: int, outcomes: Sequence[Outcome], replaced: frozenset[str] | None
    ) -> None:
        whole = outcomes if replaced is None else merged(self.writer.read(unit_id), outcomes, replaced)
        self.writer.write(unit_id, whole)
        self.claims.finish(unit_id)
        self.tally.take_unit(num_clips, outcomes)
        num_errors = sum(self.tally.errors.values())
        if self.max_errors is not None and num_errors > self.max_errors:
            self._stopped = f"{num_errors} rows failed, --max-errors allows {self.max_errors}"

    def _remember(self, ended: _Ended) -> None:
        """What a careful pass gave of units that it did not complete."""
        if ended.notes is None:
            raise BatchError("lanes die before they have answered anything; the log of Ray says of what")
        for unit_id, outcomes in ended.gatherer.whole_clips().items():
            by_row: dict[str, list[Outcome]] = {}
            for outcome in outcomes:
                by_row.setdefault(outcome.row_id, []).append(outcome)
            self._seen.setdefault(unit_id, {}).update(by_row)

    def _bury(self) -> None:
        """Rows that came out of no careful pass are error rows."""
        selection, retried = self._selection(), self._retried or {}
        for unit in self.source.units(self.job.config.batch.rows_per_unit):
            clips = selection.rows_of(unit)
            if clips and self.claims.claim(unit.unit_id) is Claim.OURS:
                seen = self._seen.pop(unit.unit_id, {})
                outcomes = [one for clip in clips for one in seen.get(clip.row_id) or [self._died(clip)]]
                self._write(unit.unit_id, len(clips), outcomes, retried.get(unit.unit_id))

    def _died(self, clip: Clip) -> Outcome:
        number = self.job.config.batch.max_attempts
        return Outcome(
            row_id=clip.row_id,
            source=clip.source,
            start_s=clip.start_s,
            end_s=clip.end_s,
            prompt=next(iter(clip.prompts or self.job.prompts), ""),
            finish_reason="error",
            error=WORKER_DIED,
            error_message=f"its workers died {number} times while they worked on this row alone (batch.max_attempts)",
            extra=clip.extra,
        )

    def _others_left_some(self, ended: _Ended) -> bool:
        """Whether units that other drivers had when they were planned are free now; waits until that is known."""
        theirs = list(ended.notes["theirs"]) if ended.notes and not self._stopped else []
        while theirs:
            num_theirs, num_free = self.claims.waiting(theirs)
            if num_free or not num_theirs:
                return bool(num_free)
            time.sleep(POLL_S)
        return False


def failed_rows(writer: UnitWriter, finished: Iterable[str]) -> dict[str, frozenset[str]]:
    """Ids of the rows with an error, by unit."""
    found = {}
    for unit_id in finished:
        failed = frozenset(outcome.row_id for outcome in writer.read(unit_id) if outcome.error)
        if failed:
            found[unit_id] = failed
    return found


def merged(before: Sequence[Outcome], after: Sequence[Outcome], replaced: frozenset[str]) -> list[Outcome]:
    """A unit's outcomes with those of some clips replaced; clips stay in their order."""
    by_row: dict[str, list[Outcome]] = {outcome.row_id: [] for outcome in (*before, *after)}
    for outcome in before:
        if outcome.row_id not in replaced:
            by_row[outcome.row_id].append(outcome)
    for outcome in after:
        by_row[outcome.row_id].append(outcome)
    return [outcome for outcomes in by_row.values() for outcome in outcomes]


@contextmanager
def _heartbeat(claims: Claims, lease_s: float) -> Iterator[None]:
    """This driver's units stay its own."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(lease_s / 3):
            try:
                claims.renew()
            except FlashSDError:
                log.exception("the lease on this driver's units could not be renewed")

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
        claims.release()
    finally:
        is_over.set()
        thread.join()


@contextmanager
def _counting(source: Source, tally: Tally) -> Iterator[None]:
    """The tally knows the number of rows once they were counted, which a worker does beside the run."""
    if tally.total_rows is not None:
        yield
        return
    counted = ray.remote(num_cpus=0)(_count).remote(source)
    is_over = threading.Event()

    def wait() -> None:
        while not is_over.is_set():
            ready, _ = ray.wait([counted], timeout=1.0)
            if ready:
                with suppress(RayError, FlashSDError):
                    tally.total_rows = ray.get(counted)
                return

    thread = threading.Thread(target=wait, name="count", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        ray.cancel(counted, force=True)


def _count(source: Source) -> int:
    return source.count()
