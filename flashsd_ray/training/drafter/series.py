"""Things in an order that are made when they are asked for: data that need not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made", covariant=True)


class Series(Protocol[Made]):
    """What can be counted and asked for one by one; a list is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Made: ...


@dataclass(frozen=True, slots=True, eq=False)
class Chosen(Generic[Item]):
    """Some places of another series."""

    whole: Series[Item]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int, /) -> Item:
        return self.whole[int(self.places[place])]


@dataclass(frozen=True, slots=True, eq=False)
class Changed(Generic[Item]):
    """Another series with a change made to each."""

    whole: Series[Item]
    change: Callable[[Item], Item]

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, place: int, /) -> Item:
        return self.change(self.whole[place])


def share(series: Series[Item], part: int, num_parts: int) -> Series[Item]:
    """One of several parts of about the same length, whose neighbours stay neighbours."""
    if num_parts == 1:
        return series
    return Chosen(series, range(part * len(series) // num_parts, (part + 1) * len(series) // num_parts))
