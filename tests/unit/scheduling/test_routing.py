"""Lanes are chosen for their prefixes, but never at the price of a queue."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.scheduling.admission import (
    Crowd,
    ServiceTimes,
    earliest_answer_s,
    expected_wait_s,
    observe_answer,
)
from flashsd_ray.scheduling.routing import SLACK, LaneLoad, choose_lane

lanes = st.lists(
    st.builds(LaneLoad, st.integers(0, 50).map("lane-{}".format), st.integers(0, 30), st.booleans()),
    max_size=8,
    unique_by=lambda lane: lane.lane_id,
)


@given(lanes=lanes, key=st.text("abc", max_size=3))
def test_the_choice_takes_requests_and_is_not_much_busier_than_the_idlest(lanes: list[LaneLoad], key: str) -> None:
    chosen = choose_lane(lanes, key)
    taking = {lane.lane_id: lane.num_open for lane in lanes if not lane.is_draining}
    if not taking:
        assert chosen is None
        return
    assert chosen in taking
    assert taking[chosen] <= min(taking.values()) + (SLACK if key else 0)


@given(lanes=lanes, key=st.text("abc", min_size=1, max_size=3), data=st.data())
def test_a_lane_that_goes_moves_only_its_own_requests(lanes: list[LaneLoad], key: str, data: st.DataObject) -> None:
    idle = [LaneLoad(lane.lane_id, 0) for lane in lanes]
    before = choose_lane(idle, key)
    if len(idle) < 2:
        return
    gone = data.draw(st.sampled_from(idle))
    after = choose_lane([lane for lane in idle if lane is not gone], key)
    assert after == before or before == gone.lane_id


def test_prefixes_spread_over_idle_lanes() -> None:
    idle = [LaneLoad(f"lane-{number}", 0) for number in range(4)]
    chosen = {choose_lane(idle, f"clip {number}") for number in range(64)}
    assert chosen == {lane.lane_id for lane in idle}


@given(
    answer_s=st.floats(0.001, 100),
    waiting=st.integers(0, 100),
    running=st.integers(0, 32),
)
def test_nobody_waits_while_a_place_is_free_and_waits_grow_with_the_queue(
    answer_s: float, waiting: int, running: int
) -> None:
    times = ServiceTimes(answer_s, answer_s / 10)
    now, later = Crowd(waiting, running, 32), Crowd(waiting + 1, running, 32)
    if waiting == 0 and running < 32:
        assert expected_wait_s(times, now) == 0
    assert expected_wait_s(times, now) <= expected_wait_s(times, later)
    assert earliest_answer_s(times, now) >= times.first_token_s


def test_means_follow_the_answers() -> None:
    times = observe_answer(ServiceTimes(), 2.0, 0.5)
    assert times == ServiceTimes(2.0, 0.5)
    for _ in range(200):
        times = observe_answer(times, 4.0, 1.0)
    assert abs(times.answer_s - 4.0) < 1e-3
    assert abs(times.first_token_s - 1.0) < 1e-3
