"""Ids of rows: the same on every run, and no two the same.

Only a 64-bit hash of every id is held, 8 bytes a row. Two ids with equal hashes, one pair in 10^7 rows once in 400,000
corpora, are taken for a repetition; that changes a name and loses nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

RECENT = 1 << 16  # ids that are kept as a Python set before they are sorted away


def derived_id(name: str, start_s: float | None, end_s: float | None, prompts: Sequence[str]) -> str:
    """The id of a row that brings none: its path in the input, its time range, and a hash of prompts of its own."""
    span = "" if start_s is None and end_s is None else f"@{_time(start_s, '0')}-{_time(end_s, 'end')}"
    if not prompts:
        return name + span
    content = hashlib.blake2b("\0".join(prompts).encode("utf-8", "surrogatepass"), digest_size=4)
    return f"{name}{span}?{content.hexdigest()}"


def _time(seconds: float | None, otherwise: str) -> str:
    return otherwise if seconds is None else f"{seconds:.17g}"


class UniqueIds:
    """Makes every id of a sequence unique; what it makes of one depends only on those before it."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted: list[np.ndarray] = []  # each [n] uint64, ascending; every one more than twice as long as the next
        self._number = -1

    def unique(self, row_id: str) -> str:
        """The id, or where it was given before ``id#N``, N being how many rows came before this one."""
        self._number += 1
        if self._is_new(row_id):
            return row_id
        changed = f"{row_id}#{self._number}"
        while not self._is_new(changed):
            changed += "+"
        return changed

    def _is_new(self, row_id: str) -> bool:
        content = hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8)
        value = int.from_bytes(content.digest(), "little")
        if value in self._recent or any(_contains(values, value) for values in self._sorted):
            return False
        self._recent.add(value)
        if len(self._recent) == RECENT:
            self._put_away()
        return True

    def _put_away(self) -> None:
        values = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
        self._recent.clear()
        while self._sorted and len(self._sorted[-1]) <= 2 * len(values):
            values = np.sort(np.concatenate((self._sorted.pop(), values)), kind="stable")
        self._sorted.append(values)


def _contains(values: np.ndarray, value: int) -> bool:
    place = int(np.searchsorted(values, np.uint64(value)))
    return place < len(values) and int(values[place]) == value
