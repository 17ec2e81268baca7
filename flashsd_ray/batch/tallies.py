"""What a run has done so far, and what it came to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flashsd_ray.batch.rows import Outcome

STAGES = ("read", "encode", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a run stands; a listener gets one whenever something has changed."""

    seconds: float  # since the run began
    num_rows: int  # clips that this run has finished
    num_before: int  # clips that were in the output when it began, about
    total_rows: int | None  # of the input; None: not counted yet
    num_outcomes: int  # rows of the output, of this run
    num_tokens: int
    errors: Mapping[str, int]  # by kind

    @property
    def num_done(self) -> int:
        """Clips that are in the output, about; the last unit of an input is seldom full."""
        done = self.num_before + self.num_rows
        return done if self.total_rows is None else min(done, self.total_rows)

    @property
    def num_errors(self) -> int:
        """Outcomes that are no captions."""
        return sum(self.errors.values())

    @property
    def rows_per_s(self) -> float:
        """Rate of this run."""
        return self.num_rows / self.seconds if self.seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Time to the end at this rate; None where nobody can say."""
        if self.total_rows is None or not self.num_rows:
            return None
        return (self.total_rows - self.num_done) / self.rows_per_s


@dataclass(slots=True)
class Tally:
    """Counts what comes out."""

    num_before: int = 0
    total_rows: int | None = None
    clock: Callable[[], float] = time.perf_counter
    began_s: float = field(init=False)
    num_rows: int = 0
    num_outcomes: int = 0
    num_tokens: int = 0
    num_copies: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))  # seconds
    lanes: dict[str, tuple[float, float]] = field(default_factory=dict)  # seconds busy and idle, by lane

    def __post_init__(self) -> None:
        self.began_s = self.clock()

    def begin(self, rows_per_unit: int, num_finished: int, retried: Mapping[str, frozenset[str]] | None) -> None:
        """The run begins with so many units in the output; where rows are retried, all there are to do are known."""
        if retried is None:
            self.num_before = rows_per_unit * num_finished
        else:
            self.total_rows = sum(len(rows) for rows in retried.values())

    def take_unit(self, num_rows: int, outcomes: Iterable[Outcome]) -> None:
        """A unit is in the output."""
        self.num_rows += num_rows
        for outcome in outcomes:
            self.num_outcomes += 1
            if outcome.error:
                self.errors[outcome.error] += 1
            if outcome.is_copy:
                self.num_copies += 1
                continue
            self.num_tokens += outcome.num_tokens
            if outcome.prompt_index == 0:
                self.stages["read"] += outcome.read_s
            self.stages["encode"] += outcome.encode_s
            self.stages["decode"] += outcome.decode_s

    def take_notes(self, notes: Mapping[str, Any]) -> None:
        """A lane has told how busy it was."""
        if "lane" in notes:
            busy_s, idle_s = self.lanes.get(notes["lane"], (0.0, 0.0))
            self.lanes[notes["lane"]] = max(busy_s, notes["busy_s"]), max(idle_s, notes["idle_s"])

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self.clock() - self.began_s

    @property
    def waiting_share(self) -> float | None:
        """Share of the time between their first and last request in which lanes had nothing to do; None: no lane ran."""
        busy_s = sum(busy_s for busy_s, _ in self.lanes.values())
        idle_s = sum(idle_s for _, idle_s in self.lanes.values())
        return idle_s / (busy_s + idle_s) if busy_s + idle_s else None

    def progress(self) -> Progress:
        """How the run stands."""
        return Progress(
            seconds=self.seconds,
            num_rows=self.num_rows,
            num_before=self.num_before,
            total_rows=self.total_rows,
            num_outcomes=self.num_outcomes,
            num_tokens=self.num_tokens,
            errors=dict(self.errors),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run came to."""

    progress: Progress
    waiting_share: float | None  # of the lanes' time, without work because clips were still being read
    stage_s: Mapping[str, float]  # by stage: read, encode, decode
    num_copies: int  # outcomes that were taken from rows with the same content
    num_repeated_passes: int  # through what was lost with its workers
    stopped: str = ""  # why the run ended before its end; empty: everything is in the output

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        progress = self.progress
        return {
            "seconds": progress.seconds,
            "rows": progress.num_rows,
            "rows_before": progress.num_before,
            "outcomes": progress.num_outcomes,
            "tokens": progress.num_tokens,
            "rows_per_hour": 3600 * progress.rows_per_s,
            "errors": dict(progress.errors),
            "copies": self.num_copies,
            "waiting_share": self.waiting_share,
            "stage_s": dict(self.stage_s),
            "repeated_passes": self.num_repeated_passes,
            "stopped": self.stopped,
        }
