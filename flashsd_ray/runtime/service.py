"""The CaptionService of a fleet, for one edge: a router that follows the fleet's roster."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from flashsd_ray.actors.routed_service import RoutedService
from flashsd_ray.actors.router import Router
from flashsd_ray.actors.service import ServiceStatus
from flashsd_ray.config import PlacementConfig
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import UnavailableError
from flashsd_ray.runtime.clients import RayEncoder, RayLane, errors_of
from flashsd_ray.runtime.roster import Roster
from flashsd_ray.types import CaptionRequest

log = logging.getLogger(__name__)

RETRY_S = 1.0  # between questions to a fleet that does not answer


class FleetService(RoutedService):
    """Keeps the protocol of actors/service.py over whatever lanes and encoders the fleet has."""

    def __init__(self, fleet: Any, router: Router, roster: Roster) -> None:
        self._fleet = fleet
        self._router = router
        self._subscriber = secrets.token_hex(8)
        self._roster = roster
        self._num_open = 0  # requests, those included that nobody has taken yet
        self._tasks: set[asyncio.Task[Any]] = set()
        self._follow(roster)
        self._follower = asyncio.create_task(self._follow_forever(roster.version))
        self._replacing: dict[str, asyncio.Task[None]] = {}

    @classmethod
    async def connect(
        cls,
        fleet: Any,  # handle of a Fleet: an actor's or a deployment's
        *,
        timeout_s: float,
        placement: PlacementConfig | None = None,  # how losses are dealt with; None: as nothing else is set
    ) -> FleetService:
        """Requests are routed to the fleet, whose first lane is up.

        Raises:
            UnavailableError: no lane came up in time; the message says why.
            CheckpointError, ConfigError: no lane will ever come up.
        """
        roster = Roster(version=-1)
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while roster.card is None:
            if loop.time() >= end_s:
                reasons = "; ".join(roster.degraded) or "it is still being loaded"
                raise UnavailableError(f"no lane came up within placement.start_timeout_s: {reasons}")
            with errors_of("the fleet"):
                roster = await fleet.roster.remote(roster.version)
            if roster.failure is not None:
                raise roster.failure
        service: FleetService

        def replace(name: str) -> None:
            service._replace(name)

        def quarantine(key: str) -> None:
            service._begin(service._quarantine(key))

        router = Router(
            roster.card,
            placement=placement,
            patience_s=timeout_s,
            on_lost=replace,
            on_quarantined=quarantine,
        )
        service = cls(fleet, router, roster)
        return service

    async def close(self) -> None:
        """The fleet is followed no more, and requests that were open have ended."""
        # The fleet may be gone already, and a deployment without replicas answers nobody, ever.
        waiting = (self._follower, *self._replacing.values(), *self._tasks)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._router.close()

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        """The chunks of the answer as they are committed; closing the generator cancels the request."""
        self._num_open += 1
        if not (self._roster.takes_requests and self._roster.encoders):
            self._begin(self._report())  # nobody is there: the fleet shall not learn it with the next look only
        try:
            async with aclosing(super().stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self._num_open -= 1

    @property
    def num_open(self) -> int:
        """Requests that are being answered, or wait to be."""
        return self._num_open

    async def status(self) -> ServiceStatus:
        """How the service is now; where lanes are started on demand it is ready without one."""
        status = await super().status()
        return replace(status, scales=self._roster.scales, is_ready=status.is_ready or self._roster.starts_on_demand)

    async def _follow_forever(self, version: int) -> None:
        while True:
            try:
                await self._report()
                roster = await self._fleet.roster.remote(version)
            except (RayError, RayServeException) as error:
                # The lanes end with the fleet; Serve starts another one.
                log.warning("the fleet does not answer: %s", type(error).__name__)
                version = -1
                await asyncio.sleep(RETRY_S)
                continue
            if roster.version != version:
                version = roster.version
                self._follow(roster)

    def _follow(self, roster: Roster) -> None:
        is_draining = bool(roster.draining - self._roster.draining)
        self._roster = roster
        self._router.degraded = roster.degraded
        self._router.refuse(roster.quarantined)
        self._router.set_encoders([RayEncoder(name, handle) for name, handle in roster.encoders])
        self._router.set_lanes([RayLane(name, handle, self._subscriber) for name, handle in roster.lanes])
        if is_draining:
            self._begin(self._router.status())  # lanes are asked, and say that they take nothing new

    async def _report(self) -> None:
        with suppress(RayError, RayServeException):
            await self._fleet.report.remote(self._subscriber, self._num_open)

    async def _quarantine(self, key: str) -> None:
        with suppress(RayError, RayServeException):  # then it is this edge's knowledge alone
            await self._fleet.quarantine.remote(key)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _replace(self, name: str) -> None:
        async def ask() -> None:
            with errors_of("the fleet"):
                await self._fleet.replace.remote(name)
            self._follow(await self._fleet.roster.remote(-1))  # it may live, and only the way to it be broken

        if name not in self._replacing:  # everybody who could not reach it asks
            self._replacing[name] = task = asyncio.create_task(ask())
            task.add_done_callback(lambda _: self._replacing.pop(name, None))
