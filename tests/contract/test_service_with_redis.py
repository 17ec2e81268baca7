"""The whole service with a real Redis behind its encoder: shared, lost, and found again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flashsd_ray.actors.local_service import LocalService
from flashsd_ray.config import MediaConfig, StoresConfig
from flashsd_ray.media import load_visual
from flashsd_ray.types import CaptionRequest, SamplingParams
from tests.contract.service_contract import CONFIG, answer
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def service(redis: RedisServer) -> AsyncIterator[LocalService]:
    service = await started(redis)
    yield service
    await service.close()


async def started(redis: RedisServer) -> LocalService:
    return await LocalService.start(replace(CONFIG, stores=StoresConfig(url=redis.url, retry_s=0.05)))


def asking(clip: Path, name: str) -> CaptionRequest:
    video = load_visual(clip, MediaConfig())
    return CaptionRequest(
        request_id=name, prompt="Describe the video.", visuals=(video,), sampling=SamplingParams(max_new_tokens=24)
    )


async def test_another_process_finds_what_this_one_encoded(
    service: LocalService, redis: RedisServer, clips: list[Path]
) -> None:
    first = await answer(service, asking(clips[0], "a"))
    assert redis.client().dbsize() >= 8  # an entry for each frame
    other = await started(redis)
    second = await answer(other, asking(clips[0], "b"))
    status = other.encoder.status()
    assert status.num_cached_frames == status.num_frames >= 8
    assert second.token_ids == first.token_ids
    await other.close()


async def test_a_lost_redis_costs_no_answer_and_is_told_of_until_it_is_back(
    service: LocalService, redis: RedisServer, clips: list[Path]
) -> None:
    before = await answer(service, asking(clips[1], "a"))
    redis.kill()
    lost = await answer(service, asking(clips[2], "b"))  # other pictures: Redis is asked for them, in vain
    assert lost.text
    (complaint,) = (await service.status()).degraded
    assert "Redis" in complaint
    assert (await service.status()).is_ready
    again = await answer(service, asking(clips[1], "c"))
    assert again.token_ids == before.token_ids
    redis.restart()
    while (await service.status()).degraded:  # it is looked for all the time
        pass
    assert (await answer(service, asking(clips[1], "d"))).token_ids == before.token_ids
