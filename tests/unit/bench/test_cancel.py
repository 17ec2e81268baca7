"""Clients that leave, against real edges in front of a service whose answers never end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from flashsd_ray.actors.service import LaneStatus, ServiceStatus
from flashsd_ray.bench.serving.asks import EDGES, Edge
from flashsd_ray.bench.serving.cancel import measure
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import UnavailableError
from flashsd_ray.types import CaptionRequest
from tests.fake_service import EchoService
from tests.unit.bench.conftest import new_ask, served


class EndlessService(EchoService):
    """Says one word and then nothing; each open answer holds rows."""

    def __init__(self, rows_held: int = 10) -> None:
        super().__init__()
        self.rows_held = rows_held

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        self.open.add(request.request_id)
        try:
            yield Chunk(request_id=request.request_id, text="word", token_ids=(1,))
            await asyncio.Event().wait()
        finally:
            self.open.discard(request.request_id)

    async def status(self) -> ServiceStatus:
        num_free = 100 - self.rows_held * len(self.open)
        return ServiceStatus(
            is_ready=True, lanes=(LaneStatus(lane_id="lane-0", num_running=len(self.open), free_rows=num_free),)
        )


@pytest.mark.parametrize("edge", EDGES)
async def test_each_trial_but_the_first_is_timed(edge: Edge, video: bytes) -> None:
    service, trials = EndlessService(), list[None]()
    asks = [new_ask(video, name=str(number)) for number in range(4)]
    async with served(service) as server:
        release = await measure(server, asks, placement="local", edge=edge, on_trial=lambda: trials.append(None))
    assert len(release.seconds) == 3
    assert 0 < release.slowest_s == max(release.seconds)
    assert len(service.asked) == len(trials) == 4
    assert not service.open


async def test_a_request_that_holds_no_rows_proves_nothing(video: bytes) -> None:
    async with served(EndlessService(rows_held=0)) as server:
        with pytest.raises(UnavailableError, match="holds no rows"):
            await measure(server, [new_ask(video)], placement="local", edge="http")


@pytest.mark.parametrize("edge", EDGES)
async def test_an_answer_that_ends_cannot_be_left(edge: Edge, video: bytes) -> None:
    async with served(EchoService()) as server:
        with pytest.raises(UnavailableError):
            await measure(server, [new_ask(video, max_new_tokens=1)], placement="local", edge=edge)
