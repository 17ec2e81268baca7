"""The laws of scaling: bounded, monotone, never below the load, steady under a steady load."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.scheduling.autoscaling import BOUNDS, IDLE, Inputs, Params, Plan, Signal, State, needed, plan

PATIENT = Params(
    min_replicas=0,
    max_replicas=8,
    upscale_delay_s=5.0,
    downscale_delay_s=30.0,
    downscale_to_zero_delay_s=60.0,
    tolerance=0.1,
)

loads = st.floats(0, 40, allow_nan=False)
delays = st.floats(0, 50, allow_nan=False)


@st.composite
def all_params(draw: st.DrawFn) -> Params:
    least = draw(st.integers(0, 5))
    return Params(
        min_replicas=least,
        max_replicas=draw(st.integers(max(1, least), 12)),
        upscale_delay_s=draw(delays),
        downscale_delay_s=draw(delays),
        downscale_to_zero_delay_s=draw(delays),
        smoothing_s=draw(delays),
        tolerance=draw(st.floats(0, 0.5)),
    )


# (seconds since the moment before, load, whether somebody waits for too long)
histories = st.lists(st.tuples(st.floats(0.01, 20), loads, st.booleans()), min_size=1, max_size=25)


def at(now_s: float, load: float, is_urgent: bool = False) -> Inputs:
    """A moment whose load is so many replicas."""
    return Inputs(now_s=now_s, signals=(Signal("requests", load * 4, 4.0),), is_urgent=is_urgent)


def run(
    params: Params, history: list[tuple[float, float, bool]], state: State | None = None
) -> tuple[list[Plan], State]:
    state, now_s, plans = state or State(desired=params.min_replicas), 0.0, []
    for passed_s, load, is_urgent in history:
        now_s += passed_s
        decided, state = plan(at(now_s, load, is_urgent), state, params)
        plans.append(decided)
    return plans, state


def steps(params: Params, *pieces: tuple[int, float], start: int = 0) -> list[int]:
    """What is desired each second, where every piece is so many seconds of a load."""
    history = [(1.0, load, False) for seconds, load in pieces for _ in range(seconds)]
    return [one.desired for one in run(params, history, State(desired=start))[0]]


class TestLaws:
    @given(all_params(), histories, st.integers(0, 20))
    def test_it_stays_within_the_bounds(
        self, params: Params, history: list[tuple[float, float, bool]], start: int
    ) -> None:
        plans, _ = run(params, history, State(desired=start))
        assert all(params.min_replicas <= one.desired <= params.max_replicas for one in plans)

    @given(all_params(), histories, loads, loads, st.floats(0.01, 20), st.booleans())
    def test_a_higher_load_never_gets_fewer(
        self,
        params: Params,
        history: list[tuple[float, float, bool]],
        one: float,
        other: float,
        passed_s: float,
        is_urgent: bool,
    ) -> None:
        _, state = run(params, history)
        now_s = (state.seen_s or 0.0) + passed_s
        fewer, _ = plan(at(now_s, min(one, other), is_urgent), state, params)
        more, _ = plan(at(now_s, max(one, other), is_urgent), state, params)
        assert fewer.desired <= more.desired

    @given(all_params(), histories)
    def test_a_down_leaves_what_the_load_needs(self, params: Params, history: list[tuple[float, float, bool]]) -> None:
        plans, _ = run(params, history)
        for one in plans:
            if one.direction == "down":
                assert one.desired >= needed(one.load, params)

    @given(all_params(), histories)
    def test_an_up_never_passes_what_the_load_needs(
        self, params: Params, history: list[tuple[float, float, bool]]
    ) -> None:
        before = params.min_replicas
        for one in run(params, history)[0]:
            assert one.desired <= max(before, needed(one.load, params))
            before = one.desired

    @given(all_params(), histories, loads)
    def test_a_steady_load_ends_in_a_steady_number_that_carries_it(
        self, params: Params, history: list[tuple[float, float, bool]], load: float
    ) -> None:
        _, state = run(params, history)
        now_s, plans = state.seen_s or 0.0, []
        for _ in range(60):  # far longer than every delay and mean
            now_s += 30.0
            decided, state = plan(at(now_s, load), state, params)
            plans.append(decided.desired)
        assert len(set(plans[-20:])) == 1
        carried = plans[-1] * (1 + params.tolerance)
        assert plans[-1] == params.max_replicas or carried >= load * (1 - 1e-6)
        assert sum(one != other for one, other in pairwise(plans)) <= 3, "it flapped"

    @given(all_params(), histories)
    def test_the_same_history_gives_the_same_plans(
        self, params: Params, history: list[tuple[float, float, bool]]
    ) -> None:
        assert run(params, history) == run(params, history)


class TestUp:
    def test_more_must_have_been_needed_for_the_whole_delay(self) -> None:
        assert steps(PATIENT, (4, 3.0), (1, 1.0), (5, 3.0), start=1) == [1] * 10
        assert steps(PATIENT, (7, 3.0), start=1) == [1, 1, 1, 1, 1, 3, 3]

    def test_the_first_replica_is_not_waited_for(self) -> None:
        assert steps(PATIENT, (2, 0.0), (1, 0.3)) == [0, 0, 1]

    def test_who_waits_too_long_is_not_kept_waiting(self) -> None:
        decided, _ = plan(at(1.0, 2.5, is_urgent=True), State(desired=1), PATIENT)
        assert (decided.desired, decided.direction) == (3, "up")

    def test_urgency_alone_asks_for_nothing(self) -> None:
        decided, _ = plan(at(1.0, 0.5, is_urgent=True), State(desired=1), PATIENT)
        assert decided.desired == 1

    def test_a_little_more_than_the_target_is_tolerated(self) -> None:
        assert steps(PATIENT, (20, 2.19), start=2)[-1] == 2
        assert steps(PATIENT, (20, 2.21), start=2)[-1] == 3

    def test_a_mean_takes_no_notice_of_a_spike(self) -> None:
        smooth = Params(max_replicas=8, smoothing_s=10.0, tolerance=0.3)
        assert steps(smooth, (5, 1.0), (1, 4.0), (5, 1.0), start=1) == [1] * 11
        assert steps(smooth, (5, 1.0), (60, 4.0), start=1)[-1] == 4


class TestDown:
    def test_fewer_must_have_been_enough_for_the_whole_delay(self) -> None:
        assert steps(PATIENT, (29, 1.0), (1, 3.0), (30, 1.0), start=3) == [3] * 60
        assert steps(PATIENT, (31, 1.0), start=3)[-2:] == [3, 1]

    def test_the_most_that_was_needed_meanwhile_stays(self) -> None:
        assert steps(PATIENT, (10, 1.0), (1, 2.5), (20, 1.0), start=5)[-1] == 3

    def test_the_last_one_goes_when_nobody_has_come_for_long(self) -> None:
        assert steps(PATIENT, (60, 0.0), start=1)[-1] == 1
        assert steps(PATIENT, (61, 0.0), start=1)[-1] == 0
        assert steps(PATIENT, (61, 0.01), start=1)[-1] == 1

    def test_several_go_to_one_first(self) -> None:
        seconds = steps(PATIENT, (62, 0.0), start=4)
        assert seconds[29:31] == [4, 1]
        assert seconds[-2:] == [0, 0]

    def test_a_minimum_of_one_is_kept(self) -> None:
        assert steps(Params(min_replicas=1, max_replicas=2), (100, 0.0), start=1) == [1] * 100


class TestReasons:
    def test_the_largest_signal_decides_and_is_named(self) -> None:
        signals = (Signal("requests", 4, 4.0), Signal("cache rows", 2.7, 0.9), Signal("drafter busy", 0.0, 0.9))
        decided, _ = plan(Inputs(now_s=0.0, signals=signals), State(desired=1), Params(max_replicas=4))
        assert (decided.desired, decided.reason, decided.direction) == (3, "cache rows", "up")
        assert math.isclose(decided.load, 3.0)

    @pytest.mark.parametrize(("start", "direction"), [(0, "up"), (9, "down")])
    def test_a_number_out_of_bounds_is_brought_back_at_once(self, start: int, direction: str) -> None:
        params = Params(min_replicas=2, max_replicas=4, downscale_delay_s=100.0)
        decided, _ = plan(at(0.0, 2.0), State(desired=start), params)
        assert (decided.reason, decided.direction) == (BOUNDS, direction)

    def test_nothing_to_do_is_a_reason(self) -> None:
        assert plan(Inputs(now_s=0.0, signals=()), State(desired=1), Params())[0].reason == IDLE
