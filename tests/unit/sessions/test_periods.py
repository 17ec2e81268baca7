"""Periods of video time are exact, and a period never has more frames than the window surely holds."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.sessions.periods import Period, Periods
from flashsd_ray.sessions.rate_limit import RateLimit

times = st.lists(st.integers(0, 3000), min_size=1, max_size=60).map(lambda ticks: [t / 100 for t in sorted(ticks)])


@given(times, st.integers(1, 500).map(lambda n: n / 100), st.integers(1, 9))
def test_every_frame_lies_in_one_period_and_none_has_too_many(
    times_s: list[float], period_s: float, frames_per_period: int
) -> None:
    periods = Periods(period_s, frames_per_period)
    ended: list[Period] = []
    taken: dict[Period, list[float]] = {}
    for time_s in times_s:
        over = periods.ended_by(time_s)
        if over is not None:
            ended.append(over)
            assert time_s >= over.end_s
        is_taken = periods.take(time_s)
        current = periods.current
        assert current is not None
        assert current.start_s <= time_s < current.end_s or Fraction(str(time_s)) < Fraction(str(current.end_s))
        if is_taken:
            taken.setdefault(current, []).append(time_s)
    assert [*ended, periods.current] == list(taken)  # each has a frame, and ends once
    assert all(len(found) <= frames_per_period for found in taken.values())
    assert all(one.end_s <= other.start_s for one, other in itertools.pairwise(ended))


def test_a_decimal_period_ends_exactly_where_it_says() -> None:
    periods = Periods(0.1, 4)
    ends = []
    for tick in range(31):
        if periods.ended_by(tick / 100) is not None:
            ends.append(tick)
        periods.take(tick / 100)
    assert ends == [10, 20, 30]


def test_frames_are_thinned_evenly_where_a_period_has_too_many() -> None:
    periods = Periods(1.0, 5)
    taken = [tick for tick in range(60) if periods.take(tick / 30)]
    assert taken == [0, 6, 12, 18, 24, 30, 36, 42, 48, 54]


@pytest.mark.parametrize("period_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_period_must_be_positive(period_s: float) -> None:
    with pytest.raises(InvalidRequestError, match="period_s must be positive"):
        Periods(period_s, 1)


@given(st.integers(1, 50), st.lists(st.floats(0, 0.2), min_size=1, max_size=200))
def test_the_rate_holds_on_average(per_second: int, gaps_s: list[float]) -> None:
    limit, now_s = RateLimit(per_second), 5.0
    for number, gap_s in enumerate(gaps_s):
        now_s += gap_s
        now_s += limit.wait_s(now_s)
        assert number + 1 <= (now_s - 5.0) * per_second + per_second + 1 + 1e-6


def test_a_stream_at_the_allowed_rate_never_waits() -> None:
    limit = RateLimit(30)
    assert all(limit.wait_s(number / 30) == 0 for number in range(1000))


def test_a_rate_far_below_one_still_lets_the_first_frame_through() -> None:
    limit = RateLimit(0.1)
    assert limit.wait_s(0.0) == 0
    assert limit.wait_s(0.0) == pytest.approx(10)
