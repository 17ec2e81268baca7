"""One real uvicorn for all tests of this room; each test puts its own application behind it."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest
import pytest_asyncio
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from flashsd_ray.config import Config, ServingConfig
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.serving.http.app import build_app
from flashsd_ray.serving.http.server import HttpEdge, start
from flashsd_ray.serving.http.status import Metrics
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.types import CaptionRequest
from tests.fake_service import EchoService

KEY = "sk-test"


class Switch:
    """Whichever application is put in."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.app is not None:
            await self.app(scope, receive, send)


class WatchedService(EchoService):
    """Says when an answer was begun and when it ended, in whatever way."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        self.begun.set()
        try:
            async with aclosing(super().stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.ended.set()


@dataclass(frozen=True)
class Served:
    """An application that answers, its service, and clients of it."""

    service: EchoService
    client: openai.AsyncOpenAI
    http: aiohttp.ClientSession
    port: int
    app: Any

    async def post(self, body: Any, path: str = "/v1/chat/completions", **options: Any) -> tuple[int, Any, Any]:
        """Status, JSON and headers of the answer to a request that no client library made."""
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        headers = {"content-type": "application/json", **options.pop("headers", {})}
        async with self.http.post(path, headers=headers, **content, **options) as response:
            return response.status, await response.json(), response.headers

    async def settled(self) -> None:
        """Nothing of a request that has ended is held any more."""
        room = self.app.state.edge.room
        for _ in range(1000):
            await asyncio.sleep(0)
        assert (room.num_requests, room.num_bytes) == (0, 0)

    async def get(self, path: str, **options: Any) -> tuple[int, Any, Any]:
        """Status, JSON and headers of the answer."""
        async with self.http.get(path, **options) as response:
            return response.status, await response.json(), response.headers


Serve = Callable[..., Served]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def uvicorn_edge() -> AsyncIterator[tuple[Switch, HttpEdge]]:
    switch = Switch()
    edge = await start(switch, Config(serving=ServingConfig(http_port=0)))
    yield switch, edge
    await edge.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def clients(uvicorn_edge: tuple[Switch, HttpEdge]) -> AsyncIterator[tuple[openai.AsyncOpenAI, Any]]:
    url = f"http://127.0.0.1:{uvicorn_edge[1].port}"
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=20)
    async with client, aiohttp.ClientSession(url) as http:
        yield client, http


@pytest_asyncio.fixture(loop_scope="session")
async def serve(uvicorn_edge: tuple[Switch, HttpEdge], clients: tuple[openai.AsyncOpenAI, Any]) -> Serve:
    """Puts a service, with settings of ``serving`` and with others, behind the server."""

    def put(
        service: EchoService | None = None,
        config: Config | None = None,
        metrics: Metrics | None = lambda: "requests 1\n",
        echoes_request_id: bool = True,
        **serving: Any,
    ) -> Served:
        switch, edge = uvicorn_edge
        service = service or EchoService()
        config = config or Config()
        config = replace(config, serving=replace(config.serving, **serving))
        switch.app = build_app(
            service, config, Gatekeeper(config.serving), metrics=metrics, echoes_request_id=echoes_request_id
        )
        return Served(service, *clients, edge.port, switch.app)

    return put


@pytest.fixture
def picture_url() -> str:
    """A small picture that stands in its address."""
    stream = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


@pytest.fixture
def video_url(clip: Path) -> str:
    """A bundled clip that stands in its address."""
    return f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes()).decode()}"
