"""Where visual tokens are kept between requests, by the content that they were made of."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Protocol

from flashsd_ray.types import VisualTokens


class VisualCache(Protocol):
    """A place for visual tokens; it may forget any of them, and a store that cannot be reached has none.

    A key stands for everything that the tokens depend on (content, weights, preprocessing, arithmetic): what is found
    under it is never out of date. Both methods may be called from any thread, and neither raises.
    """

    def get(self, key: str) -> VisualTokens | None:
        """What was put under the key, bit for bit, or None."""
        ...

    def put(self, key: str, tokens: VisualTokens) -> None:
        """The tokens may be found under the key from now on."""
        ...


class MemoryVisualCache:
    """Keeps what was used last, in this process, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, VisualTokens] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Memory in use."""
        return self._num_bytes

    def get(self, key: str) -> VisualTokens | None:
        """What was put under the key, unless other entries took its room."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: str, tokens: VisualTokens) -> None:
        """The tokens are kept, and those that nobody used for longest make room; too large ones are not kept."""
        with self._lock:
            replaced = self._entries.pop(key, None)
            self._num_bytes -= replaced.num_bytes if replaced is not None else 0
            if tokens.num_bytes > self._max_bytes:
                return
            self._entries[key] = tokens
            self._num_bytes += tokens.num_bytes
            while self._num_bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._num_bytes -= oldest.num_bytes
