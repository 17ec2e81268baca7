"""The readings that steps draw from: all of them where they fit into memory, else a window that moves over the data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from flashsd_ray.training.drafter.answers import Answer
from flashsd_ray.training.drafter.events import Listener, Pace, Read
from flashsd_ray.training.drafter.readings import Reading
from flashsd_ray.training.drafter.series import Series

FEWEST_TOKENS = 2  # of an answer: behind the only anchor of a shorter one nothing was said


class ReadingPool:
    """Readings of successive answers within a number of bytes."""

    def __init__(
        self,
        answers: Series[Answer],
        read: Callable[[Answer], Reading | None],  # None: it could not be read
        max_bytes: int,
        listener: Listener,
    ) -> None:
        self.readings: deque[Reading] = deque()
        self.version = 0  # raised whenever the readings change
        self._answers = answers
        self._read = read
        self._max_bytes = max_bytes
        self._listener = listener
        self._num_bytes = 0
        self._next = 0
        self.is_whole = False  # whether all that can be read is here

    @classmethod
    def of(cls, readings: Iterable[Reading]) -> ReadingPool:
        """A pool of readings that are there already."""
        pool = cls((), lambda answer: None, 0, lambda event: None)
        pool.readings.extend(readings)
        pool.is_whole = True
        return pool

    def fill(self, first: int = 0) -> None:
        """Answers from there on are read until there is no more room, or no more answer."""
        pace, total, num_before = Pace(), len(self._answers), 0
        self._next = first % max(1, total)
        for _ in range(total):
            if self._next == 0:
                num_before = len(self.readings)
            if self._take(makes_room=False):
                break
            if pace.is_due():
                self._report()
        else:
            self.is_whole = True
            self.readings.rotate(-num_before)  # a training that goes on finds the same order
        self._report()

    def refresh(self, count: int) -> None:
        """So many more answers are read, and the oldest readings make room for them."""
        if not self.is_whole:
            for _ in range(count):
                self._take(makes_room=True)

    def _take(self, *, makes_room: bool) -> bool:
        """The next answer is read; returns whether it found no room."""
        answer = self._answers[self._next]
        reading = self._read(answer) if len(answer.token_ids) >= FEWEST_TOKENS else None
        if reading is not None:
            if self.readings and not makes_room and self._num_bytes + reading.num_bytes > self._max_bytes:
                return True
            self._add(reading)
        self._next = (self._next + 1) % len(self._answers)
        return False

    def _add(self, reading: Reading) -> None:
        self.version += 1
        self._num_bytes += reading.num_bytes
        while self.readings and self._num_bytes > self._max_bytes:
            self._num_bytes -= self.readings.popleft().num_bytes
        self.readings.append(reading)

    def _report(self) -> None:
        self._listener(Read(done=len(self.readings), total=len(self._answers), num_bytes=self._num_bytes))
