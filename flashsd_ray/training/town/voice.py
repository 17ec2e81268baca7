"""The choice among ways to say a thing: what is seen has its favourites, chance does the rest.

With favourites, a caption's words follow from the clip: from the kinds, the place, the light. Without chance, text alone
would soon tell what comes next.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import TypeVar

FAVOURED_SHARE = 0.75  # of choices, which fall on the favourite whatever the dice say
Option = TypeVar("Option")


class Voice:
    """A seeded speaker."""

    def __init__(self, key: str) -> None:
        self._stream = random.Random(key)

    def pick(self, options: Sequence[Option], *facts: object) -> Option:
        """One of the options, most often the favourite of these facts."""
        if self._stream.random() < FAVOURED_SHARE:
            return options[zlib.crc32(repr(facts).encode()) % len(options)]
        return self._stream.choice(options)

    def draw(self, options: Sequence[Option]) -> Option:
        """Any of the options, each as likely."""
        return self._stream.choice(options)

    def agrees(self, share: float, *facts: object) -> bool:
        """True for about this share of facts, and most often the same for the same facts."""
        if self._stream.random() < FAVOURED_SHARE:
            return zlib.crc32(repr(facts).encode()) % 1000 < 1000 * share
        return self._stream.random() < share
