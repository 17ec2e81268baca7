"""What a training tells whoever watches it: each event is a value, and a line of ``training.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

REPORT_EVERY_S = 1.0
JOURNAL_FILE = "training.jsonl"


def journal_file(rank: int) -> str:
    """The name of a worker's journal; the first one's tells of the training."""
    return JOURNAL_FILE if rank == 0 else JOURNAL_FILE.replace(".", f"-{rank}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """So many of the open questions are answered."""

    done: int
    total: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """So many answers are in memory as the target thought them."""

    done: int
    total: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A question cannot be asked or read."""

    origin: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """The step that was just made, on this process's share of the batch."""

    step: int
    progress: float  # share of the training that is done
    spent_s: float
    loss: float
    hard: float  # cross entropy
    overlap: float  # mean of sum(min(p, q)) over slots
    slots: tuple[float, ...]  # share of slot i's tokens that are right when it knows the true tokens before it
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The quality on the held-out answers."""

    step: int
    progress: float
    spent_s: float
    quality: dict[str, Any]


Event = Asked | Read | LeftOut | Learnt | Judged
Listener = Callable[[Event], None]
KINDS: dict[str, type[Event]] = {
    "asked": Asked,
    "read": Read,
    "left_out": LeftOut,
    "learnt": Learnt,
    "judged": Judged,
}
NAMES = {kind: name for name, kind in KINDS.items()}


class Journal:
    """Writes every event as a line of JSON."""

    def __init__(self, path: Path, *, goes_on: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a" if goes_on else "w", encoding="utf-8")

    def __call__(self, event: Event) -> None:
        """The event is on disk."""
        values = {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(event).items()}
        self._file.write(json.dumps({"event": NAMES[type(event)], **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing more is written."""
        self._file.close()


def read_event(line: str) -> Event:
    """The event that a line of a journal tells of."""
    values = json.loads(line)
    return KINDS[values.pop("event")](**values)


def to_all(listeners: Iterable[Listener]) -> Listener:
    """A listener that passes events on to others."""
    listeners = tuple(listeners)

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell


class Pace:
    """Whether it is time to report again."""

    def __init__(self, period_s: float = REPORT_EVERY_S) -> None:
        self._period_s = period_s
        self._last_s = monotonic()

    def is_due(self) -> bool:
        """True once in a period."""
        now_s = monotonic()
        if now_s - self._last_s < self._period_s:
            return False
        self._last_s = now_s
        return True
