"""What every CaptionService behind a router has in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from flashsd_ray.actors.router import Router
from flashsd_ray.actors.service import ModelCard, ServiceStatus
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.types import CaptionRequest


class RoutedService:
    """The part of a CaptionService that is its router's; where the router's lanes come from is the subclass's affair."""

    _router: Router

    @property
    def card(self) -> ModelCard:
        """The model behind the service."""
        return self._router.card

    def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        """The chunks of the answer as they are committed; closing the generator cancels the request."""
        return self._router.stream(request)

    def require_room(self) -> None:
        """Raises OverloadedError when a request that comes now would be refused."""
        self._router.require_room()

    async def prefetch(self, request: CaptionRequest) -> int:
        """The request's prompt is in the KV cache of a lane where there was room; returns its positions."""
        return await self._router.prefetch(request)

    async def status(self) -> ServiceStatus:
        """How the service is now."""
        return await self._router.status()

    async def meters(self) -> Mapping[str, LaneMeters]:
        """What every lane that answers has counted, by its name."""
        return await self._router.meters()
