"""Parcels that were answered come in any order, some of them twice: complete units come out, each of them once."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from flashsd_ray.batch.parcels import Head
from flashsd_ray.batch.planning import added
from flashsd_ray.batch.rows import Outcome


@dataclass(slots=True)
class _Open:
    """A unit some of whose parcels are here."""

    num_parts: int
    num_clips: int
    pieces: dict[tuple[int, int], list[Outcome]] = field(default_factory=dict)  # by part and piece
    num_pieces: dict[int, int] = field(default_factory=dict)  # by part, once its last piece is here

    @property
    def is_complete(self) -> bool:
        return len(self.num_pieces) == self.num_parts and len(self.pieces) == sum(self.num_pieces.values())

    def outcomes(self) -> list[Outcome]:
        return [outcome for place in sorted(self.pieces) for outcome in self.pieces[place]]


class Gatherer:
    """Holds the units that are not complete yet: as many as are under way at a time."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}
        self._complete: set[str] = set()
        self.checksum = 0  # of the ids of the units that came out

    def add(self, head: Head, outcomes: Sequence[Outcome]) -> list[Outcome] | None:
        """All outcomes of the parcel's unit, in the order of the input, if it is complete now."""
        if head.unit_id in self._complete:
            return None
        unit = self._open.setdefault(head.unit_id, _Open(head.num_parts, head.num_clips))
        unit.pieces.setdefault((head.part, head.piece), list(outcomes))
        if head.is_last_piece:
            unit.num_pieces[head.part] = head.piece + 1
        if not unit.is_complete:
            return None
        del self._open[head.unit_id]
        self._complete.add(head.unit_id)
        self.checksum = added(self.checksum, head.unit_id)
        return unit.outcomes()

    @property
    def complete(self) -> Set[str]:
        """Ids of the units that came out."""
        return self._complete

    def whole_clips(self) -> dict[str, list[Outcome]]:
        """What is here of units that are not complete, without clips of which a segment is missing."""
        return {unit_id: self._whole(unit) for unit_id, unit in self._open.items()}

    def _whole(self, unit: _Open) -> list[Outcome]:
        kept = []
        for part, num_pieces in unit.num_pieces.items():
            pieces = [unit.pieces.get((part, piece)) for piece in range(num_pieces)]
            if all(piece is not None for piece in pieces):
                kept += [outcome for piece in pieces if piece is not None for outcome in piece]
        return kept
