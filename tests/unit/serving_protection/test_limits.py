"""Laws of the rate and of the slots, over any sequence of arrivals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.errors import OverloadedError
from flashsd_ray.serving.protection.limits import CallerState, LimitParams, entered, left, wait_s

PARAMS = st.builds(
    LimitParams,
    requests_per_minute=st.floats(0.1, 1e5),
    burst_requests=st.integers(1, 20),
    concurrent_requests=st.just(0),
)
# Many at once, then pauses of every length.
GAPS_S = st.lists(st.one_of(st.just(0.0), st.floats(0.0, 1.0), st.floats(0.0, 1000.0)), max_size=60)
STARTS_S = st.floats(0.0, 1e7)


def admitted(params: LimitParams, start_s: float, gaps_s: list[float]) -> list[float]:
    """The times of those arrivals that are let in."""
    state, now_s, times_s = CallerState(), start_s, []
    for gap_s in gaps_s:
        now_s += gap_s
        try:
            state = left(entered(state, params, now_s))
        except OverloadedError:
            continue
        times_s.append(now_s)
    return times_s


@given(PARAMS, STARTS_S, GAPS_S)
def test_no_window_holds_more_than_its_share_and_one_burst(
    params: LimitParams, start_s: float, gaps_s: list[float]
) -> None:
    times_s = admitted(params, start_s, gaps_s)
    for first in range(len(times_s)):
        for last in range(first, len(times_s)):
            window_s = times_s[last] - times_s[first]
            allowed = (window_s + 1e-5) / params.interval_s + params.burst_requests
            assert last - first + 1 <= allowed


@given(PARAMS, STARTS_S)
def test_a_rested_caller_gets_its_whole_burst_and_no_more(params: LimitParams, start_s: float) -> None:
    times_s = admitted(params, start_s, [0.0] * (params.burst_requests + 1))
    assert len(times_s) == params.burst_requests or params.interval_s <= 1e-6


@given(PARAMS, STARTS_S, GAPS_S)
def test_the_wait_that_is_asked_for_is_enough_and_needed(
    params: LimitParams, start_s: float, gaps_s: list[float]
) -> None:
    state, now_s = CallerState(), start_s
    for gap_s in gaps_s:
        now_s += gap_s
        expected_s = wait_s(state, params, now_s)
        if not expected_s:
            state = entered(state, params, now_s)
            continue
        with pytest.raises(OverloadedError) as caught:
            entered(state, params, now_s)
        assert caught.value.retry_after_s == expected_s
        assert wait_s(state, params, now_s + expected_s) == 0
        assert wait_s(state, params, now_s + expected_s * 0.9 - 1e-5) > 0


@given(PARAMS, STARTS_S)
def test_a_steady_caller_at_the_rate_is_never_refused(params: LimitParams, start_s: float) -> None:
    assert len(admitted(params, start_s, [params.interval_s * (1 + 1e-9) + 1e-8] * 30)) == 30


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=60))
def test_never_more_are_open_than_allowed_and_every_slot_comes_back(limit: int, moves: list[bool]) -> None:
    params = LimitParams(concurrent_requests=limit)
    state = CallerState()
    for comes in moves:
        before = state
        if not comes:
            state = left(state) if state.num_open else state
        elif before.num_open < limit:
            state = entered(state, params, 0.0)
        else:
            with pytest.raises(OverloadedError, match=rf"serving.concurrent_requests allows {limit}"):
                entered(state, params, 0.0)
        assert 0 <= state.num_open <= limit
    for _ in range(state.num_open):
        state = left(state)
    assert state.num_open == 0


def test_a_request_that_finds_no_slot_does_not_use_up_the_rate() -> None:
    params = LimitParams(requests_per_minute=1, burst_requests=2, concurrent_requests=1)
    state = entered(CallerState(), params, 0.0)
    with pytest.raises(OverloadedError):
        entered(state, params, 0.0)
    state = entered(left(state), params, 0.0)
    with pytest.raises(OverloadedError, match=r"serving.requests_per_minute allows 1, the next in 60 s") as caught:
        entered(left(state), params, 0.0)
    assert caught.value.retry_after_s == 60.0


def test_a_refusal_for_both_reasons_names_the_longer_wait() -> None:
    params = LimitParams(requests_per_minute=1, burst_requests=1, concurrent_requests=1)
    state = entered(CallerState(), params, 0.0)
    with pytest.raises(OverloadedError, match=r"concurrent_requests") as caught:
        entered(state, params, 10.0)
    assert caught.value.retry_after_s == 50.0


def test_without_limits_nobody_waits() -> None:
    state = CallerState()
    for _ in range(1000):
        state = entered(state, LimitParams(), 0.0)
    assert state.num_open == 1000
    assert wait_s(state, LimitParams(), -math.inf) == 0
