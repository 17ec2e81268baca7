"""A store in the memory of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from flashsd_ray.config import StoresConfig
from flashsd_ray.stores.lru import RecentValues
from flashsd_ray.stores.store import StoreCounts

# What a value takes besides its own bytes, so that a million small ones are no surprise.
_OVERHEAD_BYTES = 256


class MemoryStore:
    """Keeps stores.memory_bytes; what nobody asked for the longest is forgotten first."""

    def __init__(self, config: StoresConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_value_bytes = config.max_value_bytes
        self._values: RecentValues[bytes] = RecentValues(config.memory_bytes, clock=clock)
        self._is_closed = False
        self._hits = self._misses = 0
        self._counting = threading.Lock()

    @property
    def is_shared(self) -> bool:
        """Nobody else sees this memory."""
        return False

    @property
    def counts(self) -> StoreCounts:
        """Hits and misses so far."""
        return StoreCounts(hits=self._hits, misses=self._misses)

    def get(self, key: str) -> bytes | None:
        """The value under the key; None where there is none."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values of those keys that have one."""
        asked = list(dict.fromkeys(keys))
        found = {key: value for key in asked if (value := self._values.get(key)) is not None}
        with self._counting:
            self._hits += len(found)
            self._misses += len(asked) - len(found)
        return found

    def put(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Whether the value is kept now, in place of any other, for ``ttl_s`` seconds."""
        return self._put(key, value, ttl_s, replaces=True)

    def add(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Whether there was no value and this one is kept now; of many callers at once one is told so."""
        return self._put(key, value, ttl_s, replaces=False)

    def delete(self, key: str) -> None:
        """There is no value under the key."""
        self._values.delete(key)

    def health(self) -> str:
        """Always well, until it is closed."""
        return "the store is closed" if self._is_closed else ""

    def close(self) -> None:
        """The memory is free; from now on nothing is found."""
        self._is_closed = True
        self._values.clear()

    def _put(self, key: str, value: bytes, ttl_s: float, *, replaces: bool) -> bool:
        if self._is_closed or len(value) > self._max_value_bytes:
            return False
        num_bytes = len(key) + len(value) + _OVERHEAD_BYTES
        return self._values.put(key, bytes(value), num_bytes, ttl_s, replaces=replaces)
