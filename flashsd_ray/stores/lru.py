"""A bounded memory of recent values, for any thread."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Value]):
    value: Value
    num_bytes: int
    end_s: float


class RecentValues(Generic[Value]):
    """Values of a known size; where there is no room, those that nobody asked for the longest are forgotten."""

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[Value]] = OrderedDict()  # the most recently used last
        self._num_bytes = 0
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Sum of the sizes of all values."""
        return self._num_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Value | None:
        """The value, which counts as used now; None where there is none or its time is over."""
        with self._lock:
            entry = self._living(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry.value

    def put(
        self,
        key: str,
        value: Value,
        num_bytes: int,
        ttl_s: float = float("inf"),
        *,
        replaces: bool = True,  # False: a value that is there stays
    ) -> bool:
        """Whether the value is kept under the key now; one that is larger than everything together is not."""
        with self._lock:
            if not replaces and self._living(key) is not None:
                return False
            self._drop(key)
            if num_bytes > self.max_bytes:
                return False
            self._entries[key] = _Entry(value, num_bytes, self._clock() + ttl_s)
            self._num_bytes += num_bytes
            while self._num_bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))
            return True

    def delete(self, key: str) -> None:
        """There is no value under the key."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """There is no value at all."""
        with self._lock:
            self._entries.clear()
            self._num_bytes = 0

    def _living(self, key: str) -> _Entry[Value] | None:
        entry = self._entries.get(key)
        if entry is not None and self._clock() >= entry.end_s:
            self._drop(key)
            return None
        return entry

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._num_bytes -= entry.num_bytes
