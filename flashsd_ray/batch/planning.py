"""Which parcels there are to do: units are listed one by one, and those that are done, or somebody else's, passed over.

Nothing here holds more than one unit. How planning ended is told in a last parcel that has no clips.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa

from flashsd_ray.batch.claims import Claim, Claims
from flashsd_ray.batch.parcels import Head, packed, packed_clips
from flashsd_ray.batch.rows import Clip, Unit

MOST_PEEKED = 1000  # units: as many as are listed within seconds


class UnitSource(Protocol):
    """An input: the same units in the same order on every run."""

    def units(self, rows_per_unit: int) -> Iterator[Unit]:
        """All units, listed as they are asked for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which units, and which of their rows, a pass is about."""

    finished: frozenset[str] = frozenset()  # ids of units that are in the output
    retried: Mapping[str, frozenset[str]] | None = None  # ids of rows by unit; None: all rows of what is not finished
    is_checked: bool = True  # whether units that were finished with other rows in their place stop the run

    def rows_of(self, unit: Unit) -> tuple[Clip, ...]:
        """The unit's clips that are to be captioned."""
        if self.retried is not None:
            wanted = self.retried.get(unit.unit_id, frozenset())
            return tuple(clip for clip in unit.clips if clip.row_id in wanted)
        return () if unit.unit_id in self.finished else unit.clips


@dataclass(slots=True)
class Notes:
    """How planning ended."""

    num_units: int = 0  # that were given out
    num_rows: int = 0  # in them
    checksum: int = 0  # of their ids
    theirs: list[str] = field(default_factory=list)  # units that another driver works on
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For a head."""
        return asdict(self)

    def give(self, unit_id: str, num_rows: int) -> None:
        """One more unit is given out."""
        self.num_units += 1
        self.num_rows += num_rows
        self.checksum = added(self.checksum, unit_id)


def added(checksum: int, unit_id: str) -> int:
    """The checksum of some units and one more; their order does not matter."""
    digest = hashlib.blake2b(unit_id.encode(), digest_size=7).digest()
    return (checksum + int.from_bytes(digest, "big")) % 2**56


def parcels(
    source: UnitSource,
    selection: Selection,
    claims: Claims,
    *,
    rows_per_unit: int,
    rows_per_parcel: int,
    wait: Callable[[int], None] = lambda serial: None,  # returns when the parcel of this number may be planned
) -> Iterator[pa.Table]:
    """Every parcel that is to be done, then how planning ended."""
    notes = Notes()
    places = _places(selection)
    serial = 0
    for unit in source.units(rows_per_unit):
        unit_id = unit.unit_id
        if places.get(unit.index, unit_id) != unit_id:
            notes.problem = f"the rows of unit {unit.index} are others than those that are in the output already"
            break
        clips = selection.rows_of(unit)
        if not clips:
            continue
        wait(serial)
        claim = claims.claim(unit_id)
        if claim is Claim.THEIRS:
            notes.theirs.append(unit_id)
        if claim is not Claim.OURS:
            continue
        notes.give(unit_id, len(clips))
        parts = [clips[start : start + rows_per_parcel] for start in range(0, len(clips), rows_per_parcel)]
        for part, some in enumerate(parts):
            wait(serial)
            yield packed_clips(_head(unit_id, serial, part, parts, clips), some)
            serial += 1
    yield packed(Head(serial=serial, notes=notes.as_dict()))


def may_have_work(source: UnitSource, selection: Selection, rows_per_unit: int) -> bool:
    """Whether anything is to be done; of a long input only the first units are looked at before that is assumed."""
    if selection.retried is not None:
        return bool(selection.retried)
    places = _places(selection)
    for unit in islice(source.units(rows_per_unit), MOST_PEEKED):
        if places.get(unit.index, unit.unit_id) != unit.unit_id or selection.rows_of(unit):
            return True
        if unit.index == MOST_PEEKED - 1:
            return True
    return False


def _head(unit_id: str, serial: int, part: int, parts: Sequence[object], clips: Sequence[Clip]) -> Head:
    return Head(unit_id=unit_id, serial=serial, part=part, num_parts=len(parts), num_clips=len(clips))


def _places(selection: Selection) -> dict[int, str]:
    """The unit that is in the output at each place."""
    if not selection.is_checked:
        return {}
    return {int(unit_id.partition("-")[0]): unit_id for unit_id in selection.finished}
