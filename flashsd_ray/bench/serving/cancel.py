"""How soon after a client has gone nothing of its request is left in the KV cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import aiohttp

from flashsd_ray.bench.serving.asks import Ask, Edge
from flashsd_ray.bench.serving.http_asker import body_of
from flashsd_ray.bench.serving.percentiles import Percentiles
from flashsd_ray.bench.serving.server import Server
from flashsd_ray.bench.serving.sse import EventParser
from flashsd_ray.client import AsyncClient, Retries, Video
from flashsd_ray.errors import UnavailableError

POLL_S = 0.005
PATIENCE_S = 30.0  # after which rows count as lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Seconds from leaving to free rows, of every trial."""

    placement: str
    edge: Edge
    seconds: tuple[float, ...]

    @property
    def slowest_s(self) -> float:
        """The longest of them."""
        return max(self.seconds)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        percentiles = Percentiles.of(self.seconds)
        return {
            "placement": self.placement,
            "edge": self.edge,
            "slowest_s": self.slowest_s,
            "percentiles": None if percentiles is None else percentiles.as_dict(),
            "seconds": list(self.seconds),
        }


@dataclass(frozen=True, slots=True)
class Rows:
    """How the lanes stand."""

    num_free: int
    num_busy: int  # requests that run or wait

    @classmethod
    def of(
        cls,
        ready: Any,  # what /readyz says
    ) -> Rows:
        """The totals of all lanes."""
        lanes = ready["lanes"]
        return cls(
            num_free=sum(lane["free_rows"] for lane in lanes),
            num_busy=sum(lane["num_running"] + lane["num_waiting"] for lane in lanes),
        )


async def measure(
    running: Server,
    asks: Sequence[Ask],  # long ones; the first warms up
    *,
    placement: str,
    edge: Edge,
    on_trial: Callable[[], None] = lambda: None,
) -> Release:
    """Each request is left when its first text is there.

    Raises:
        UnavailableError: the server cannot be reached, an answer ends early, or rows are not given back.
    """
    begun = _begun_http if edge == "http" else _begun_grpc
    seconds = []
    async with aiohttp.ClientSession() as http:
        idle = await _rows(http, running)
        for number, ask in enumerate(asks):
            async with begun(running, ask):
                if (await _rows(http, running)).num_free >= idle.num_free:
                    raise UnavailableError("a request that runs holds no rows, so that none could become free")
                left_s = perf_counter()
            elapsed_s = await _freed(http, running, idle, left_s)
            if number:
                seconds.append(elapsed_s)
            on_trial()
    return Release(placement=placement, edge=edge, seconds=tuple(seconds))


async def _freed(http: aiohttp.ClientSession, running: Server, idle: Rows, left_s: float) -> float:
    while True:
        rows = await _rows(http, running)
        elapsed_s = perf_counter() - left_s
        if rows.num_busy == 0 and rows.num_free >= idle.num_free:
            return elapsed_s
        if elapsed_s > PATIENCE_S:
            raise UnavailableError(f"{idle.num_free - rows.num_free} rows are not given back after {PATIENCE_S:g} s")
        await asyncio.sleep(POLL_S)


async def _rows(http: aiohttp.ClientSession, running: Server) -> Rows:
    try:
        async with http.get(running.ready_url) as response:
            return Rows.of(await response.json())
    except aiohttp.ClientError as error:
        raise UnavailableError(f"{running.ready_url}: {type(error).__name__}: {error}") from error


@asynccontextmanager
async def _begun_http(running: Server, ask: Ask) -> AsyncIterator[None]:
    """Inside the block the answer has begun; leaving it closes the connection."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.http_url}/chat/completions", json=body_of(ask)) as reply,
    ):
        if reply.status != 200:
            raise UnavailableError(f"{reply.status}: {await reply.text()}")
        parser = EventParser()
        async for content in reply.content.iter_any():
            if any(map(_has_text, parser.feed(content))):
                yield
                reply.close()
                return
    raise UnavailableError("the answer ended before its client had left")


def _has_text(data: str) -> bool:
    return data != "[DONE]" and any(choice["delta"].get("content") for choice in json.loads(data)["choices"])


@asynccontextmanager
async def _begun_grpc(running: Server, ask: Ask) -> AsyncIterator[None]:
    """Inside the block the answer has begun; leaving it cancels the call."""
    async with (
        AsyncClient(running.grpc_address, retries=Retries(attempts=1)) as client,
        aclosing(client.stream(Video(ask.picture), ask.prompt, sampling=ask.sampling)) as pieces,
    ):
        async for piece in pieces:
            if piece.text and piece.finish_reason is None:
                yield
                return
    raise UnavailableError("the answer ended before its client had left")
