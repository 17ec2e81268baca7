"""From what parts say of themselves to what scaling goes by."""

from __future__ import annotations

import math
from dataclasses import replace

from flashsd_ray.actors.encoder_host import EncoderStatus
from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.config import AutoscalingConfig, Config, SchedulingConfig
from flashsd_ray.runtime.load import UNREPORTED_S, BusyShares, Load, LoadMeter, encoder_load, lane_load
from flashsd_ray.runtime.scaling import encoder_scaling, lane_scaling
from flashsd_ray.scheduling.autoscaling import Signal

CONFIG = Config(
    scheduling=SchedulingConfig(max_running=8),
    autoscaling=AutoscalingConfig(max_lanes=4, max_encoders=3, upscale_delay_s=0, smoothing_s=0),
)
IDLE = EncoderStatus(num_waiting=0, num_waiting_frames=0, num_running=0, num_frames=0, num_cached_frames=0, busy_s=0.0)


def lane(number: int = 1, *, running: int = 0, waiting: int = 0, free: int = 100, wait_s: float = 0.0) -> LaneStatus:
    return LaneStatus(
        lane_id=f"lane-{number}",
        num_running=running,
        num_waiting=waiting,
        free_rows=free,
        total_rows=100,
        wait_s=wait_s,
    )


def loads(load: Load) -> dict[str, float]:
    return {signal.name: signal.load for signal in load.signals}


class TestLanes:
    def test_requests_count_wherever_they_wait(self) -> None:
        found = loads(lane_load([lane(running=8, waiting=4), lane(running=6)], 0, 0.0, CONFIG))
        assert found["requests"] == 18 / 6, "three quarters of max_running are what a lane should have"

    def test_requests_that_no_lane_has_yet_count_too(self) -> None:
        assert loads(lane_load([], 5, 0.0, CONFIG))["requests"] == 5 / 6
        assert loads(lane_load([lane(running=4)], 9, 0.0, CONFIG))["requests"] == 9 / 6, "and nobody counts twice"

    def test_rows_that_are_held_count_by_share(self) -> None:
        assert math.isclose(loads(lane_load([lane(free=10), lane(free=55)], 0, 0.0, CONFIG))["cache rows"], 1.35 / 0.9)

    def test_a_busy_drafter_is_a_load(self) -> None:
        assert math.isclose(loads(lane_load([lane()], 0, 0.99, CONFIG))["drafter busy"], 1.1)

    def test_it_is_urgent_when_every_lane_keeps_requests_waiting(self) -> None:
        late, early = lane(1, waiting=1, wait_s=9.0), lane(2, running=1, wait_s=9.0)
        assert lane_load([late], 0, 0.0, CONFIG).is_urgent
        assert not lane_load([late, early], 0, 0.0, CONFIG).is_urgent, "the other one has a place"
        assert not lane_load([], 3, 0.0, CONFIG).is_urgent


class TestEncoders:
    def test_frames_that_wait_and_busy_time_count(self) -> None:
        found = loads(encoder_load([replace(IDLE, num_waiting_frames=160)], 7, 0.45, CONFIG))
        assert found == {"frames": 2.5, "encoder busy": 0.5, "requests": 1.0}

    def test_one_is_wanted_for_any_request_and_none_without(self) -> None:
        assert loads(encoder_load([], 3, 0.0, CONFIG))["requests"] == 1.0
        assert not any(loads(encoder_load([], 0, 0.0, CONFIG)).values())


def test_busy_time_is_told_as_a_share_of_the_time_that_passed() -> None:
    shares = BusyShares()
    assert shares.share("one", 5.0, 10.0) == 0.0, "nothing to compare with"
    assert shares.share("one", 6.0, 14.0) == 0.25
    assert shares.share("one", 16.0, 15.0) == 1.0
    assert shares.share("one", 0.0, 16.0) == 0.0, "it was started anew"


async def test_an_edge_that_says_nothing_any_more_has_no_requests() -> None:
    now = [0.0]
    meter = LoadMeter(CONFIG, lambda: now[0])
    meter.report("here", 3)
    meter.report("there", 4)
    now[0] = UNREPORTED_S - 1
    meter.report("there", 5)
    assert loads(await meter.lanes([], ()))["requests"] == 8 / 6
    now[0] = UNREPORTED_S
    assert loads(await meter.lanes([], ()))["requests"] == 5 / 6


class TestNumbers:
    def test_a_fixed_number_follows_nothing(self) -> None:
        fixed = lane_scaling(Config())
        assert fixed.follow(Load(signals=(Signal("requests", 100, 1),), is_urgent=True)) is None
        assert (fixed.wanted, fixed.least) == (1, 1)

    def test_ups_and_downs_are_counted_with_their_reason(self) -> None:
        now = [0.0]
        scaling = encoder_scaling(CONFIG)
        scaling.clock = lambda: now[0]
        decided = scaling.follow(Load(signals=(Signal("frames", 2.5, 1),)))
        assert decided is not None
        assert (scaling.wanted, scaling.ups, scaling.reason) == (3, 1, "frames")
        for now[0] in (1.0, 302.0):
            scaling.follow(Load(signals=(Signal("frames", 0.5, 1),)))
        assert (scaling.wanted, scaling.downs, scaling.least) == (1, 1, 1)

    def test_with_a_minimum_of_none_the_first_one_is_started_all_the_same(self) -> None:
        scaling = lane_scaling(replace(CONFIG, autoscaling=replace(CONFIG.autoscaling, min_lanes=0)))
        assert (scaling.wanted, scaling.least) == (1, 0)
