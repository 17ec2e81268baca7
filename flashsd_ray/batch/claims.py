"""Who works on a unit: nobody else where there is one driver; on a Redis, whoever was first and is still alive.

What is done is what is in the output; claims only keep drivers from doing the same work at the same time.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Claim(enum.Enum):
    """What asking for a unit came to."""

    OURS = "ours"
    THEIRS = "theirs"  # another driver works on it
    DONE = "done"


class Claims(Protocol):
    """Units that this driver works on; the same claims may be asked in several processes of one driver."""

    def claim(self, unit_id: str) -> Claim:
        """Whether this driver may work on the unit."""
        ...

    def finish(self, unit_id: str) -> None:
        """The unit is in the output; nobody needs to work on it again."""
        ...

    def renew(self) -> None:
        """This driver is alive, and its units are its own for another lease."""
        ...

    def release(self) -> None:
        """This driver works no more; its units are free."""
        ...

    def waiting(self, unit_ids: Iterable[str]) -> tuple[int, int]:
        """How many of the units other drivers still work on, and how many are free."""
        ...


@dataclass(frozen=True, slots=True)
class SoleDriver:
    """There is one driver: every unit is its own."""

    def claim(self, unit_id: str) -> Claim:
        """Always ours."""
        return Claim.OURS

    def finish(self, unit_id: str) -> None:
        """Nothing to do."""

    def renew(self) -> None:
        """Nothing to do."""

    def release(self) -> None:
        """Nothing to do."""

    def waiting(self, unit_ids: Iterable[str]) -> tuple[int, int]:
        """Nobody else works on anything."""
        return 0, len(list(unit_ids))
