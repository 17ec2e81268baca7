"""The service contract over actors, and what happens to requests when one of them dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from flashsd_ray.config import Config, PlacementConfig
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.engine.local import Engine
from flashsd_ray.runtime.fleet import Fleet
from flashsd_ray.runtime.roster import Roster
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.types import CaptionRequest, SamplingParams
from tests.contract.service_contract import CONFIG, ServiceContract, answer, expected_of, requests_about


@pytest.fixture(scope="module")
def expected(clips: list[Path]) -> list[Caption]:
    return expected_of(Engine.local(CONFIG), requests_about(clips))


def start_fleet(config: Config) -> Any:
    fleet = ray.remote(Fleet).options(num_cpus=0, max_concurrency=100).remote(config)
    ray.get(fleet.start.remote())
    return fleet


def end_fleet(fleet: Any) -> None:
    ray.get(fleet.close.remote())
    ray.kill(fleet)


SMALL = PlacementConfig(num_lanes=2, lane_cpus=0.5, encoder_cpus=0.1, health_period_s=0.2)


@pytest.fixture(scope="module", params=["colocated", "dedicated"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Any]:
    fleet = start_fleet(replace(CONFIG, placement=replace(SMALL, kind=request.param)))
    yield fleet
    end_fleet(fleet)


class TestFleetService(ServiceContract):
    @pytest.fixture
    async def service(self, fleet: Any) -> AsyncIterator[FleetService]:
        service = await FleetService.connect(fleet, timeout_s=120)
        yield service
        await service.close()


async def roster_with(fleet: Any, num_lanes: int) -> Roster:
    """The first roster with so many lanes."""
    roster = Roster(version=-1)
    while len(roster.lanes) != num_lanes:
        roster = await fleet.roster.remote(roster.version)
    return roster


async def test_a_killed_lane_costs_no_token_and_is_replaced(
    fleet: Any, clips: list[Path], expected: list[Caption]
) -> None:
    service = await FleetService.connect(fleet, timeout_s=120)
    before = await roster_with(fleet, 2)
    requests = [
        replace(request, sampling=SamplingParams(max_new_tokens=150, ignore_eos=True))
        for request in requests_about(clips, 6)
    ]
    begun = asyncio.Event()

    async def watched(request: CaptionRequest) -> Caption:
        chunks: list[Chunk] = []
        async with aclosing(service.stream(request)) as stream:
            async for chunk in stream:
                chunks.append(chunk)
                begun.set()
        return joined(chunks)

    running = [asyncio.create_task(watched(request)) for request in requests]
    await begun.wait()
    lost, handle = before.lanes[0]
    ray.kill(handle)
    answers = await asyncio.gather(*running)
    alone = expected_of(Engine.local(CONFIG), requests)
    assert [caption.token_ids for caption in answers] == [caption.token_ids for caption in alone]
    assert [caption.text for caption in answers] == [caption.text for caption in alone]
    after = before
    while lost in dict(after.lanes) or len(after.lanes) < 2:
        after = await fleet.roster.remote(after.version)
    assert (await answer(service, requests_about(clips)[0])).token_ids == expected[0].token_ids
    await service.close()


async def test_a_killed_encoder_is_replaced_and_nothing_is_lost(
    fleet: Any, clips: list[Path], expected: list[Caption]
) -> None:
    service = await FleetService.connect(fleet, timeout_s=120)
    roster = await roster_with(fleet, 2)
    (lost, handle), *_ = roster.encoders
    ray.kill(handle)
    # There is one encoder, so these wait for its successor.
    answers = await asyncio.gather(*(answer(service, request) for request in requests_about(clips)[:4]))
    assert [caption.token_ids for caption in answers] == [caption.token_ids for caption in expected[:4]]
    assert lost not in dict((await fleet.roster.remote()).encoders)
    await service.close()


async def test_a_killed_drafter_costs_speed_and_no_token(
    fleet: Any, clips: list[Path], expected: list[Caption]
) -> None:
    service = await FleetService.connect(fleet, timeout_s=120)
    await roster_with(fleet, 2)
    drafters = {name: handle for name, handle in (await fleet.parts.remote()).items() if name.startswith("drafter")}
    for handle in drafters.values():
        ray.kill(handle)
    answers = await asyncio.gather(*(answer(service, request) for request in requests_about(clips)[:8]))
    assert [caption.token_ids for caption in answers] == [caption.token_ids for caption in expected[:8]]
    if drafters:
        drafted = 0
        while not drafted:  # until a drafter is back
            caption = await answer(service, requests_about(clips)[0])
            assert caption.token_ids == expected[0].token_ids
            drafted = caption.stats.num_draft_tokens
    await service.close()
