"""The standard health service (grpc.health.v1): SERVING while requests would be answered.

Unlike the servicer that grpcio-health-checking brings, it asks when it is asked, and ends its watches when the server
drains, so that a load balancer that watches does not hold up the end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

logger = logging.getLogger(__name__)

_UNKNOWN = health_pb2.HealthCheckResponse.UNKNOWN
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_NO_SUCH_SERVICE = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # generated, without types
    """Knows how the service is whenever it is asked; who watches is told within ``period_s``."""

    def __init__(
        self,
        is_ready: Callable[[], Awaitable[bool]],
        services: tuple[str, ...],  # names beside "", which stands for the whole server
        period_s: float,
    ) -> None:
        self._is_ready = is_ready
        self._services = ("", *services)
        self._period_s = period_s
        self._state: int = _NOT_SERVING
        self._is_draining = False
        self._changed = asyncio.Condition()
        self._refreshing: asyncio.Task[None] | None = None

    async def Check(  # noqa: N802 (the name of the RPC)
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """The state now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        await self.refresh()
        return health_pb2.HealthCheckResponse(status=self._state)

    async def Watch(  # noqa: N802 (the name of the RPC)
        self, request: health_pb2.HealthCheckRequest, context: object
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The state now and whenever it changes, until the server drains."""
        told: int = _UNKNOWN
        while not self._is_draining:
            state = self._state_of(request.service)
            if state != told:
                yield health_pb2.HealthCheckResponse(status=state)
            told = state
            async with self._changed:
                await self._changed.wait_for(partial(self._has_news, request.service, told))
        if told != self._state_of(request.service):
            yield health_pb2.HealthCheckResponse(status=self._state_of(request.service))

    async def start(self) -> None:
        """The state is known, and looked at again every ``period_s``."""
        await self.refresh()
        self._refreshing = asyncio.create_task(self._refresh_forever())

    async def refresh(self) -> None:
        """The state is what a request would find."""
        try:
            is_ready = await self._is_ready()
        except Exception:
            logger.exception("the service does not say how it is")
            is_ready = False
        await self._set(_SERVING if is_ready and not self._is_draining else _NOT_SERVING)

    async def drain(self) -> None:
        """NOT_SERVING from now on, and nobody watches any more."""
        self._is_draining = True
        await self._set(_NOT_SERVING)
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing

    async def _set(self, state: int) -> None:
        async with self._changed:
            self._state = state
            self._changed.notify_all()

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            await self.refresh()

    def _has_news(self, service: str, told: int) -> bool:
        return self._is_draining or self._state_of(service) != told

    def _state_of(self, service: str) -> int:
        return self._state if service in self._services else _NO_SUCH_SERVICE
