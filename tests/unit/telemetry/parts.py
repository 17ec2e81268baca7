"""Totals of parts that did some work, for tests of whoever exports them."""

from __future__ import annotations

from flashsd_ray.actors.encoder_host import EncoderStatus
from flashsd_ray.actors.service import LaneStatus, RoleScale, ServiceStatus
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.speculation.stats import RoundStats, SpeculationStats
from flashsd_ray.stores.store import StoreCounts
from flashsd_ray.telemetry.metrics import EdgeMeters
from flashsd_ray.telemetry.tally import Tally
from flashsd_ray.types import FinishReason

STATUS = ServiceStatus(
    is_ready=True,
    lanes=(LaneStatus(lane_id="lane-0", num_waiting=2, num_running=3, free_rows=1000, total_rows=1024),),
    degraded=("one lane is missing",),
    scales=(RoleScale(role="lane", desired=3, actual=2, starting=1, draining=1, ups=4, downs=2, reason="requests"),),
)
ENCODER = EncoderStatus(
    num_waiting=1, num_waiting_frames=8, num_running=2, num_frames=100, num_cached_frames=40, busy_s=1.5
)


class LostStore:
    """Was asked a little before it was lost."""

    counts = StoreCounts(hits=5, misses=2, errors=1)

    def health(self) -> str:
        return "the store is lost"


def lane_meters() -> LaneMeters:
    """Three rounds: one request, then three, then seventy."""
    meters = LaneMeters(prompt_tokens=30, cached_prompt_tokens=10)
    for num_requests in (1, 3, 70):
        meters.count_round(num_requests, {"verify": 0.25, "draft": 0.5, "decode": 1.0})
        for _ in range(num_requests):
            meters.count_block(4, 2, 3)
    meters.count_answer("stop")
    meters.count_answer("expired")
    return meters


def edge_meters() -> EdgeMeters:
    """One whole answer."""
    meters = EdgeMeters()
    rounds = SpeculationStats.of_round(RoundStats(num_draft_tokens=4, num_accepted_tokens=2, num_new_tokens=3))
    tally = Tally(began_s=0.0)
    tally.take(Chunk(request_id="r", token_ids=(1,), num_prompt_tokens=9, num_cached_tokens=4), 0.5)
    last = Chunk(
        request_id="r",
        token_ids=(2, 3, 4),
        num_prompt_tokens=9,
        finish_reason=FinishReason.STOP,
        stats=SpeculationStats.of_prefill() + rounds + SpeculationStats.of_stage("prefill", 0.25),
    )
    tally.take(last, 2.0)
    meters.began("http")
    meters.ended("http", tally)
    meters.prefetched("grpc", "cached")
    return meters
