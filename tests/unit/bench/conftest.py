"""Both edges in front of a fake service, on free loopback ports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flashsd_ray.bench.serving.asks import Ask
from flashsd_ray.bench.serving.clips import png_of
from flashsd_ray.bench.serving.server import Server
from flashsd_ray.config import Config, with_overrides
from flashsd_ray.serving.grpc.edge import open_grpc_edge
from flashsd_ray.serving.http.app import build_app
from flashsd_ray.serving.http.server import start as start_http
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.types import SamplingParams
from tests.fake_service import EchoService
from tests.media_files import make_video, numbered_frame


@asynccontextmanager
async def served(service: EchoService, *settings: str) -> AsyncIterator[Server]:
    """Where the edges are."""
    config = with_overrides(Config(), ["serving.http_port=0", "serving.grpc_port=0", *settings])
    http = await start_http(build_app(service, config, Gatekeeper(config.serving)), config)
    grpc = await open_grpc_edge(service, config)
    try:
        yield Server(http_url=f"http://127.0.0.1:{http.port}/v1", grpc_address=f"127.0.0.1:{grpc.port}", pid=0)
    finally:
        await grpc.stop(0)
        await http.stop()


@pytest.fixture(scope="session")
def video() -> bytes:
    """A small MP4 file."""
    return make_video(num_frames=6)


def new_ask(video: bytes, name: str = "one", prompt: str = "What moves here?", **sampling: Any) -> Ask:
    """A request about the video."""
    return Ask(name=name, prompt=prompt, picture=video, sampling=SamplingParams(**sampling))


@pytest.fixture(scope="session")
def png() -> bytes:
    """A small picture file."""
    return png_of(numbered_frame(3))
