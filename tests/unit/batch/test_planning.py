"""Planning passes over what is done or somebody else's, holds one unit at a time, and says how it ended."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

import pytest

from flashsd_ray.batch import planning
from flashsd_ray.batch.claims import Claim, Claims, SoleDriver
from flashsd_ray.batch.gathering import Gatherer
from flashsd_ray.batch.parcels import clips_in, head_of
from flashsd_ray.batch.planning import Selection, may_have_work, parcels
from flashsd_ray.batch.rows import Clip, Outcome, Unit


class Rows:
    """So many rows; counts how many were listed."""

    def __init__(self, number: int, prefix: str = "row") -> None:
        self.number = number
        self.prefix = prefix
        self.listed = 0

    def units(self, rows_per_unit: int) -> Iterator[Unit]:
        names = (f"{self.prefix}-{number}" for number in range(self.number))
        index = 0
        while some := tuple(islice(names, rows_per_unit)):
            self.listed += len(some)
            yield Unit(index=index, clips=tuple(Clip(row_id=name, source=f"{name}.mp4") for name in some))
            index += 1


class OthersHave(SoleDriver):
    def __init__(self, unit_ids: set[str], done: set[str]) -> None:
        object.__setattr__(self, "unit_ids", unit_ids)
        object.__setattr__(self, "done", done)

    def claim(self, unit_id: str) -> Claim:
        return Claim.THEIRS if unit_id in self.unit_ids else Claim.DONE if unit_id in self.done else Claim.OURS


def plan(rows: Rows, selection: Selection | None = None, claims: Claims | None = None, **options):
    sizes = {"rows_per_unit": 5, "rows_per_parcel": 2} | options
    return parcels(rows, selection or Selection(), claims or SoleDriver(), **sizes)


def ids_of(rows: Rows) -> list[str]:
    return [unit.unit_id for unit in rows.units(5)]


def test_every_row_is_in_one_parcel_and_the_end_is_told():
    *planned, end = plan(Rows(12))
    names = [clip.row_id for row in planned for clip in clips_in(row)]
    assert names == [f"row-{number}" for number in range(12)]
    heads = [head_of(row) for row in planned]
    assert [head.serial for head in heads] == list(range(len(heads)))
    assert [(head.part, head.num_parts, head.num_clips) for head in heads[:3]] == [(0, 3, 5), (1, 3, 5), (2, 3, 5)]
    notes = head_of(end).notes
    assert (notes["num_units"], notes["num_rows"], notes["theirs"], notes["problem"]) == (3, 12, [], "")


def test_nothing_is_listed_before_it_is_wanted():
    rows = Rows(10_000)
    planned = plan(rows)
    next(planned)
    assert rows.listed == 5


def test_a_parcel_waits_for_its_turn_and_its_unit_is_not_claimed_before():
    asked = []
    planned = plan(Rows(12), wait=asked.append)
    next(planned)
    assert asked == [0, 0]
    next(planned)
    assert asked[-1] == 1


def test_what_is_in_the_output_is_passed_over():
    rows = Rows(12)
    first = ids_of(rows)[0]
    *planned, _ = plan(rows, Selection(finished=frozenset([first])))
    assert {head_of(row).unit_id for row in planned} == set(ids_of(rows)[1:])


def test_units_of_other_drivers_are_told_and_those_they_have_done_are_not():
    rows = Rows(15)
    theirs, done, ours = ids_of(rows)
    *planned, end = plan(rows, claims=OthersHave({theirs}, {done}))
    assert {head_of(row).unit_id for row in planned} == {ours}
    assert head_of(end).notes["theirs"] == [theirs]


def test_an_input_with_other_rows_in_the_place_of_a_finished_unit_is_noticed():
    finished = frozenset(ids_of(Rows(12)))
    *planned, end = plan(Rows(12, prefix="other"), Selection(finished=finished))
    assert not planned
    assert "unit 0" in head_of(end).notes["problem"]
    *planned, _ = plan(Rows(12, prefix="other"), Selection(finished=finished, is_checked=False))
    assert len(planned) == 7


def test_only_rows_that_failed_are_planned_again():
    rows = Rows(12)
    first, *_ = ids_of(rows)
    selection = Selection(finished=frozenset(ids_of(rows)), retried={first: frozenset(["row-1", "row-4"])})
    (parcel,) = list(plan(rows, selection))[:-1]
    assert [clip.row_id for clip in clips_in(parcel)] == ["row-1", "row-4"]
    assert head_of(parcel).num_clips == 2


@pytest.mark.parametrize("seed", range(20))
def test_gathering_gives_every_unit_once_in_order_whatever_comes_twice_or_late(seed):
    source = random.Random(seed)
    *planned, end = plan(Rows(23))
    arrived = [(head_of(row), [Outcome(row_id=clip.row_id) for clip in clips_in(row)]) for row in planned]
    again = source.sample(arrived, 5)
    arrived += again
    source.shuffle(arrived)
    gatherer, complete = Gatherer(), {}
    for head, outcomes in arrived:
        unit = gatherer.add(head, outcomes)
        if unit is not None:
            assert head.unit_id not in complete
            complete[head.unit_id] = [outcome.row_id for outcome in unit]
    names = [name for unit_id in sorted(complete) for name in complete[unit_id]]
    assert names == [f"row-{number}" for number in range(23)]
    assert gatherer.checksum == head_of(end).notes["checksum"]


def test_a_unit_that_lacks_a_parcel_does_not_come_out_and_shows_in_the_checksum():
    *planned, end = plan(Rows(10))
    gatherer = Gatherer()
    for row in planned[1:]:
        gatherer.add(head_of(row), [Outcome(row_id=clip.row_id) for clip in clips_in(row)])
    assert gatherer.checksum != head_of(end).notes["checksum"]
    (left,) = gatherer.whole_clips().values()
    assert [outcome.row_id for outcome in left] == ["row-2", "row-3", "row-4"]


def test_there_is_work_where_a_unit_is_missing_or_another_one_stands_in_its_place():
    units = [unit.unit_id for unit in Rows(9).units(3)]
    assert may_have_work(Rows(9), Selection(), 3)
    assert may_have_work(Rows(9), Selection(finished=frozenset(units[:2])), 3)
    assert may_have_work(Rows(9, "other"), Selection(finished=frozenset(units)), 3)
    assert not may_have_work(Rows(9), Selection(finished=frozenset(units)), 3)
    assert not may_have_work(Rows(0), Selection(), 3)


def test_where_rows_are_retried_they_are_the_work():
    assert not may_have_work(Rows(9), Selection(retried={}), 3)
    assert may_have_work(Rows(9), Selection(retried={"00000000-ab": frozenset({"row-1"})}), 3)


def test_a_long_input_is_not_listed_to_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planning, "MOST_PEEKED", 2)
    rows = Rows(100)
    assert may_have_work(rows, Selection(finished=frozenset(unit.unit_id for unit in Rows(100).units(3))), 3)
    assert rows.listed == 6
