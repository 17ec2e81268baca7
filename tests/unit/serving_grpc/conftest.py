"""A gRPC edge on a free loopback port in front of the echo service, and a channel to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status

from flashsd_ray.config import Config, with_overrides
from flashsd_ray.serving.grpc.edge import GrpcEdge, start
from flashsd_ray.serving.grpc.servicer import CaptioningServicer
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from flashsd_ray.wire.v1 import captioning_pb2_grpc
from tests.fake_service import EchoService

LIMIT_S = 60.0


def configured(*settings: str, **tls: str) -> Config:
    """A config with these settings, on a free port."""
    config = with_overrides(Config(), ["serving.grpc_port=0", *settings])
    return replace(config, serving=replace(config.serving, **tls))


class Served:
    """An edge that is running, and how a client sees it."""

    def __init__(self, edge: GrpcEdge, channel: grpc.aio.Channel) -> None:
        self.edge, self.channel = edge, channel
        self.stub: Any = captioning_pb2_grpc.CaptioningStub(channel)

    def raw(self, method: str) -> Any:
        """The unary RPC, taking and giving bytes."""
        return self.channel.unary_unary(f"/flashsd.v1.Captioning/{method}", bytes, bytes)


@asynccontextmanager
async def serving(
    service: EchoService, *settings: str, tls: Mapping[str, str] = MappingProxyType({}), **options: Any
) -> AsyncIterator[Served]:
    config = configured(*settings, **tls)
    servicer = CaptioningServicer(service, config, Gatekeeper(config.serving), **options)
    edge = await start(servicer, config.serving)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
            yield Served(edge, channel)
    finally:
        await edge.stop(0)


@pytest.fixture
def service() -> EchoService:
    return EchoService()


def question(text: str = "what happens here", **fields: Any) -> pb.CaptionRequest:
    return pb.CaptionRequest(turns=[pb.Turn(parts=[pb.Part(text=text)])], **fields)


async def error_of(call: Any) -> grpc.aio.AioRpcError:
    """The error that the RPC ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def stream_error_of(call: Any) -> grpc.aio.AioRpcError:
    """The error that the stream ends with."""
    return await error_of(_read_all(call))


async def _read_all(call: Any) -> list[Any]:
    return [event async for event in call]


def retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    """What the RetryInfo in the error's details says."""
    status = rpc_status.from_call(error)
    info = RetryInfo()
    if status is None or not any(detail.Unpack(info) for detail in status.details):
        return None
    return info.retry_delay.ToNanoseconds() / 1e9


async def until(is_true: Callable[[], bool]) -> None:
    """Others had their turn until the condition held: tasks, and the threads of gRPC."""

    async def looking() -> None:
        while not is_true():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)

    await asyncio.wait_for(looking(), LIMIT_S)
