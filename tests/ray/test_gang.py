"""A split target as a gang of actors: it answers as one process does, and is lost and rebuilt as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError

from flashsd_ray.config import ModelConfig, PlacementConfig
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.engine.local import Engine
from flashsd_ray.runtime.fleet import Fleet
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.types import CaptionRequest, SamplingParams
from tests.contract.service_contract import CONFIG, requests_about

pytestmark = pytest.mark.timeout(600)  # three processes that load a model each, twice

WHOLE = replace(CONFIG, model=ModelConfig(dtype="float32", device="cpu"))
SPLIT = replace(
    WHOLE,
    model=replace(WHOLE.model, tensor_parallel=2),
    placement=PlacementConfig(kind="dedicated", lane_cpus=0.5, encoder_cpus=0.1, health_period_s=0.2),
)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Any]:
    fleet = ray.remote(Fleet).options(num_cpus=0, max_concurrency=100).remote(SPLIT)
    ray.get(fleet.start.remote())
    yield fleet
    ray.get(fleet.close.remote())
    ray.kill(fleet)


def long_requests(clips: list[Path]) -> list[CaptionRequest]:
    sampling = SamplingParams(max_new_tokens=120, ignore_eos=True)
    return [replace(request, sampling=sampling) for request in requests_about(clips)[:3]]


async def test_a_killed_rank_takes_its_lane_along_and_costs_no_token(fleet: Any, clips: list[Path]) -> None:
    requests = long_requests(clips)
    alone = Engine.local(WHOLE)
    expected = [alone.caption(request).token_ids for request in requests]
    service = await FleetService.connect(fleet, timeout_s=180)
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
    before = await fleet.parts.remote()
    (lost,) = [name for name in before if name.startswith("rank-1-of-")]
    ray.kill(before[lost])
    assert [caption.token_ids for caption in await asyncio.gather(*running)] == expected
    after = await fleet.parts.remote()
    assert lost not in after
    assert lost.removeprefix("rank-1-of-") not in after
    assert [name for name in after if name.startswith("rank-1-of-")]
    await service.close()


async def looked_at_to_the_end(rank: Any) -> None:
    while True:
        with suppress(RayTaskError):  # still there, and it says that it is of no use any more
            await rank.status.remote()


async def test_ranks_end_with_their_lane(fleet: Any) -> None:
    service = await FleetService.connect(fleet, timeout_s=180)
    before = await fleet.parts.remote()
    (lane,) = [name for name in before if name.startswith("lane-")]
    ray.kill(before[lane])
    with pytest.raises(RayActorError):
        await looked_at_to_the_end(before[f"rank-1-of-{lane}"])
    await service.close()
