"""The CaptionService of a fleet, for one edge: a router that follows the fleet's roster."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from flashsd_ray.actors.routed_service import RoutedService
from flashsd_ray.actors.router import Router
from flashsd_ray.errors import UnavailableError
from flashsd_ray.runtime.clients import RayEncoder, RayLane, errors_of
from flashsd_ray.runtime.fleet import Roster

log = logging.getLogger(__name__)

RETRY_S = 1.0  # between questions to a fleet that does not answer


class FleetService(RoutedService):
    """Keeps the protocol of actors/service.py over whatever lanes and encoders the fleet has."""

    def __init__(self, fleet: Any, router: Router, roster: Roster) -> None:
        self._fleet = fleet
        self._router = router
        self._subscriber = secrets.token_hex(8)
        self._follow(roster)
        self._follower = asyncio.create_task(self._follow_forever(roster.version))
        self._replacing: dict[str, asyncio.Task[None]] = {}

    @classmethod
    async def connect(
        cls,
        fleet: Any,  # handle of a Fleet: an actor's or a deployment's
        *,
        timeout_s: float,
    ) -> FleetService:
        """Requests are routed to the fleet, whose first lane is up.

        Raises:
            UnavailableError: no lane came up in time; the message says why.
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
        service: FleetService

        def replace(name: str) -> None:
            service._replace(name)

        service = cls(fleet, Router(roster.card, patience_s=timeout_s, on_lost=replace), roster)
        return service

    async def close(self) -> None:
        """The fleet is followed no more, and requests that were open have ended."""
        # The fleet may be gone already, and a deployment without replicas answers nobody, ever.
        waiting = (self._follower, *self._replacing.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._router.close()

    async def _follow_forever(self, version: int) -> None:
        while True:
            try:
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
        self._router.degraded = roster.degraded
        self._router.set_encoders([RayEncoder(name, handle) for name, handle in roster.encoders])
        self._router.set_lanes([RayLane(name, handle, self._subscriber) for name, handle in roster.lanes])

    def _replace(self, name: str) -> None:
        async def ask() -> None:
            with errors_of("the fleet"):
                await self._fleet.replace.remote(name)
            self._follow(await self._fleet.roster.remote(-1))  # it may live, and only the way to it be broken

        if name not in self._replacing:  # everybody who could not reach it asks
            self._replacing[name] = task = asyncio.create_task(ask())
            task.add_done_callback(lambda _: self._replacing.pop(name, None))
