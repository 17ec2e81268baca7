"""Parts and edges are lost under load, and every answer is the one that it would have been."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flashsd_ray.bench.chaos.edges import edges_here
from flashsd_ray.bench.chaos.redis import RedisProcess
from flashsd_ray.bench.chaos.run import run
from flashsd_ray.bench.chaos.schedule import Action, Target, schedule
from flashsd_ray.bench.chaos.work import expected, works
from flashsd_ray.config import PlacementConfig, ServingConfig, StoresConfig
from tests.contract.service_contract import CONFIG
from tests.redis_server import free_port, needs_redis

NUM_REQUESTS = 24
FAULTS: tuple[tuple[Action, Target], ...] = (
    ("kill", "lane"),
    ("poison", "lane"),
    ("kill", "encoder"),
    ("delay", "lane"),
    ("kill", "grpc-edge"),
)
PLACEMENT = PlacementConfig(
    num_lanes=2,
    lane_cpus=0.2,
    encoder_cpus=0.1,
    health_period_s=0.5,
    health_timeout_s=60.0,  # a slow machine is no fault
    edge_timeout_s=120.0,
    max_losses=3,
)


@needs_redis
@pytest.mark.timeout(600)  # eight processes are started and six end: a busy machine takes its time
async def test_every_request_has_the_right_tokens_whatever_is_lost() -> None:
    faults = schedule(seed=1, num_faults=len(FAULTS), num_requests=NUM_REQUESTS, kinds=FAULTS)
    load = works(NUM_REQUESTS, faults)
    with RedisProcess() as redis:
        config = replace(
            CONFIG,
            placement=PLACEMENT,
            stores=StoresConfig(url=redis.url),
            serving=ServingConfig(http_port=free_port(), grpc_port=free_port(), drain_timeout_s=0.0),
        )
        answers = expected(config, load)
        async with edges_here(config) as cluster:
            chaos = await run(config, cluster, redis, load, faults, answers, concurrency=6)
    unsound = [fate.as_dict() for fate in chaos.fates if not fate.is_sound]
    assert unsound == []
    assert chaos.verdicts["right"] >= NUM_REQUESTS - 2  # what may come again had its forty attempts
    assert chaos.verdicts["quarantined"] == 1
    assert chaos.is_sound, [one.as_dict() for one in chaos.felt]
