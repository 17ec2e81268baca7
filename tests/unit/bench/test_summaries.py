"""Percentiles, summaries, tables: from outcomes to what is printed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.bench.serving.asks import Outcome
from flashsd_ray.bench.serving.percentiles import Percentiles, in_ms
from flashsd_ray.bench.serving.summary import Summary
from flashsd_ray.bench.serving.tables import MarkdownTable

SLOW = Outcome(name="slow", start_s=1.0, end_s=5.0, pieces_s=(2.0, 3.0, 5.0), num_tokens=5, text="a b c")
FAST = Outcome(name="fast", start_s=0.5, end_s=1.0, pieces_s=(1.0,), num_tokens=1, text="a")
REFUSED = Outcome(name="refused", start_s=4.0, end_s=8.5, code="429")


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_lie_within_the_values_in_their_order(values: list[float]) -> None:
    found = Percentiles.of(values)
    assert found is not None
    assert min(values) <= found.p50 <= found.p90 <= found.p99 <= max(values)
    assert found.num_values == len(values)


def test_percentiles_of_a_hundred_values() -> None:
    found = Percentiles.of([*map(float, range(101)), None])
    assert found == Percentiles(p50=50.0, p90=90.0, p99=99.0, num_values=101)
    assert in_ms(found) == "50000 / 90000 / 99000"


def test_nothing_has_no_percentiles() -> None:
    assert Percentiles.of([None, None]) is None
    assert in_ms(None) == "-"


def test_what_one_outcome_says() -> None:
    assert SLOW.first_s == 1.0
    assert SLOW.per_token_s == (5.0 - 2.0) / 4
    assert SLOW.gaps_s == (1.0, 2.0)
    assert FAST.per_token_s is None
    assert (REFUSED.first_s, REFUSED.gaps_s, REFUSED.is_answered) == (None, (), False)


def test_a_refusal_counts_for_time_and_codes_and_for_nothing_else() -> None:
    summary = Summary.of([SLOW, FAST, REFUSED])
    assert (summary.num_requests, summary.num_answered) == (3, 2)
    assert summary.codes == {"OK": 2, "429": 1}
    assert summary.seconds == 8.0
    assert summary.tokens_per_s == 6 / 8.0
    assert summary.requests_per_s == 2 / 8.0
    assert summary.whole_s is not None
    assert summary.whole_s.num_values == 2
    assert summary.gap_s is not None
    assert summary.gap_s.num_values == 2
    assert summary.as_dict()["per_token_s"] == {"p50": 0.75, "p90": 0.75, "p99": 0.75, "num_values": 1}


def test_there_is_no_summary_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        Summary.of([])


def test_a_table_grows_row_by_row_and_stays_a_table() -> None:
    out = io.StringIO()
    table = MarkdownTable("name", "value", out=out)
    assert out.getvalue() == "| name | value |\n| --- | --- |\n"
    table.row("a|b\nc", 3)
    assert out.getvalue().splitlines()[2] == "| a\\|b c | 3 |"
    with pytest.raises(ValueError, match="2 columns"):
        table.row("only one")
