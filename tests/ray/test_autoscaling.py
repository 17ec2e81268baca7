"""A fleet follows its load: from no lane to several and back, while every answer stays what it must be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from flashsd_ray.config import AutoscalingConfig, Config, ModelConfig, PlacementConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.errors import CheckpointError
from flashsd_ray.runtime.fleet import Fleet
from flashsd_ray.runtime.roster import Roster
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.types import SamplingParams
from tests.contract.service_contract import CONFIG, answer, expected_of, requests_about

EAGER = AutoscalingConfig(
    min_lanes=0,
    max_lanes=2,
    target_requests_per_lane=2,
    smoothing_s=0,
    upscale_delay_s=0,
    downscale_delay_s=0.3,
    downscale_to_zero_delay_s=0.3,
    interval_s=0.1,
)
NUM_CLIENTS = 6
SMALL = PlacementConfig(lane_cpus=0.5, encoder_cpus=0.1, health_period_s=0.2)


@pytest.fixture
async def fleet_of() -> AsyncIterator[Callable[[Config], Any]]:
    fleets = []

    def start(config: Config) -> Any:
        fleets.append(ray.remote(Fleet).options(num_cpus=0, max_concurrency=100).remote(config))
        return fleets[-1]

    yield start
    for fleet in fleets:
        await fleet.close.remote()
        ray.kill(fleet)


async def roster_when(fleet: Any, holds: Callable[[Roster], bool]) -> Roster:
    roster = Roster(version=-1)
    while roster.version < 0 or not holds(roster):
        roster = await fleet.roster.remote(roster.version)
    return roster


@pytest.mark.timeout(400)  # three lanes are started, one after the other
async def test_lanes_come_with_the_load_and_go_with_it_and_no_answer_suffers(
    fleet_of: Callable[[Config], Any], clips: list[Path]
) -> None:
    fleet = fleet_of(replace(CONFIG, placement=SMALL, autoscaling=EAGER))
    service = await FleetService.connect(fleet, timeout_s=120)
    requests = [
        replace(request, sampling=SamplingParams(max_new_tokens=60, ignore_eos=True))
        for request in requests_about(clips, 3)
    ]
    expected = expected_of(Engine.local(CONFIG), requests)
    await roster_when(fleet, lambda roster: roster.card is not None and not roster.lanes)
    assert (await service.status()).is_ready, "the first request must be let in: it has a lane started"

    is_enough = asyncio.Event()

    async def ask_again_and_again(client: int) -> int:
        turns = 0
        while not is_enough.is_set():
            number = (client + turns) % len(requests)
            request = replace(requests[number], request_id=f"client {client}, turn {turns}")
            given = await answer(service, request)
            assert given.token_ids == expected[number].token_ids, request.request_id
            assert given.text == expected[number].text
            turns += 1
        return turns

    load = asyncio.gather(*(ask_again_and_again(client) for client in range(NUM_CLIENTS)))
    grown = await roster_when(fleet, lambda roster: len(roster.lanes) == 2)
    is_enough.set()  # what is open is finished, by lanes that go meanwhile
    assert all(await load)
    shrunk = await roster_when(fleet, lambda roster: not roster.lanes)
    before, after = grown.scales[0], shrunk.scales[0]
    assert (before.role, before.desired, before.reason) == ("lane", 2, "requests")
    assert after.ups == before.ups >= 1
    assert after.downs > before.downs
    assert (after.desired, after.actual) == (0, 0)
    await service.close()


async def test_a_model_that_cannot_be_loaded_ends_the_start_at_once(fleet_of: Callable[[Config], Any]) -> None:
    missing = replace(CONFIG, model=ModelConfig(name="/no/such/directory"), placement=SMALL)
    with pytest.raises(CheckpointError, match="/no/such/directory"):
        await FleetService.connect(fleet_of(missing), timeout_s=120)
