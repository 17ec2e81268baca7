"""From turns to figures, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from flashsd_ray.bench.decode.contenders import Outcome
from flashsd_ray.bench.decode.divergence import divergences, first_difference
from flashsd_ray.bench.decode.figures import draw
from flashsd_ray.bench.decode.measuring import Measured
from flashsd_ray.bench.decode.plan import Cell, Turn
from flashsd_ray.bench.decode.summary import PLAIN, PLAIN_WIDE, Row, rows_of
from flashsd_ray.bench.decode.tables import table_of
from flashsd_ray.bench.intervals import median_ratio, rate_ratio, ratio_of_totals
from flashsd_ray.bench.tables import markdown


def outcome(seconds: float, rounds: int, answer: tuple[int, ...] = (1, 2, 3), drafts: int = 0) -> Outcome:
    return Outcome(
        seconds=seconds,
        num_tokens=12,
        token_ids={"clip": answer},
        rounds=rounds,
        drafts=drafts,
        accepted_per_slot=(3, 1) if drafts else (),
        stage_s={"draft": 0.25 * seconds * (drafts > 0), "verify": 0.5 * seconds},
        batch_rounds=rounds,
    )


def turn(number: int, temperature: float = 0.0, others: Mapping[str, Outcome] | None = None) -> Measured:
    outcomes = {
        "block": outcome(1.0 + number, 4, drafts=8),
        PLAIN: outcome(3.0 + 3 * number, 12),
        "generate": outcome(6.0 + 6 * number, 12, (1, 9, 3)),
    }
    return Measured(Turn(Cell(temperature, 1), number), outcomes | dict(others or {}))


@pytest.fixture
def rows() -> dict[tuple[float, str], Row]:
    found = rows_of([turn(0), turn(1), turn(0, 1.0), turn(1, 1.0)])
    return {(row.cell.temperature, row.contender): row for row in found}


def test_plain_is_the_faster_of_two_ways_to_decode_plainly() -> None:
    turns = [turn(0, others={PLAIN_WIDE: outcome(2.0, 12)}), turn(1, others={PLAIN_WIDE: outcome(4.0, 12)})]
    rows = {row.contender: row for row in rows_of(turns)}
    assert rows["block"].against[PLAIN].value == pytest.approx(2.0)
    assert rows[PLAIN].against[PLAIN].value == pytest.approx(6 / 9)
    assert PLAIN not in rows[PLAIN_WIDE].against


def test_ratios_are_those_of_totals(rows: dict[tuple[float, str], Row]) -> None:
    block, generate = rows[0.0, "block"], rows[0.0, "generate"]
    assert block.against[PLAIN].value == pytest.approx(3.0)
    assert block.against["generate"].value == pytest.approx(6.0)
    assert block.median_against[PLAIN] == pytest.approx(3.0)
    assert generate.against[PLAIN].value == pytest.approx(0.5)
    assert block.tokens_per_s == pytest.approx(24 / 3)
    assert block.tau is not None
    assert block.tau.value == pytest.approx(3.0)
    assert block.survival == pytest.approx((6 / 8, 2 / 8))
    assert block.drafted_per_round == pytest.approx(2.0)
    assert block.round_ms == pytest.approx({"draft": 93.75, "verify": 187.5, "other": 93.75})


def test_divergence_is_told_where_answers_can_be_compared(rows: dict[tuple[float, str], Row]) -> None:
    assert (rows[0.0, "block"].num_compared, len(rows[0.0, "block"].diverged)) == (1, 0)
    (parted,) = rows[0.0, "generate"].diverged
    assert (parted.place, parted.expected, parted.found) == (1, 2, 9)
    assert rows[1.0, "generate"].num_compared == 0, "another library draws other tokens"
    assert rows[1.0, "block"].num_compared == 1, "keyed draws are the same whatever drafts"
    assert rows[0.0, "block"].as_dict()["share_diverged"] == 0.0


def test_an_answer_that_another_continues_has_not_diverged() -> None:
    assert first_difference((1, 2, 3), (1, 2)) is None
    assert divergences({"a": (1, 2), "b": (5,)}, {"a": (1, 2, 3)}) == []


def test_tables_and_pictures(rows: dict[tuple[float, str], Row], tmp_path: Path) -> None:
    table = table_of(list(rows.values()))
    assert "| 0 | 1 | block | 1 | 8 | 3.00x [3.00, 3.00] |" in table
    assert len(table.splitlines()) == 2 + len(rows)
    drawn = draw(list(rows.values()), tmp_path)
    assert [path.name for path in drawn] == ["speedup.svg", "survival.svg", "round.svg"]
    first = [path.read_bytes() for path in drawn]
    assert all(content.startswith(b"<?xml") for content in first)
    assert [path.read_bytes() for path in draw(list(rows.values()), tmp_path)] == first


def test_cells_of_a_table_stay_in_their_columns() -> None:
    assert markdown(("a", "b"), [(None, "x|y\nz")]) == "| a | b |\n| --- | --- |\n|  | x\\|y z |\n"


def test_intervals_hold_the_value_and_narrow_with_more_units() -> None:
    def units(count: int) -> list[tuple[float, float]]:
        return [(10.0, 1.0 + index % 4) for index in range(count)]

    def baseline(count: int) -> list[tuple[float, float]]:
        return [(10.0, 5.0 - index % 3) for index in range(count)]

    few, many = (rate_ratio(baseline(count), units(count)) for count in (12, 120))
    assert few.low < few.value < few.high
    assert few.value == pytest.approx(many.value)
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert rate_ratio(baseline(12), units(12)) == few, "the same every time"
    assert median_ratio([(1.0, 2.0)], [(1.0, 1.0)]) == pytest.approx(2.0)


def test_a_ratio_of_totals_is_not_a_mean_of_ratios() -> None:
    assert ratio_of_totals([1.0, 9.0], [1.0, 1.0]).value == pytest.approx(5.0)
    assert ratio_of_totals([1.0, 9.0], [1.0, 3.0]).value == pytest.approx(2.5)
    with pytest.raises(ValueError, match="units"):
        ratio_of_totals([], [])
    with pytest.raises(ValueError, match="units"):
        ratio_of_totals([1.0], [1.0, 2.0])
