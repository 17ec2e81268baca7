"""A fleet on a Ray that is there already, with edges in this process: the small form, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import ray

from flashsd_ray.bench.chaos.cluster import Reached
from flashsd_ray.bench.chaos.parts import CHAOS_KINDS
from flashsd_ray.bench.chaos.schedule import Target
from flashsd_ray.config import Config
from flashsd_ray.runtime.fleet import Fleet
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.serving.grpc.edge import GrpcEdge, open_grpc_edge
from flashsd_ray.serving.http.app import build_app
from flashsd_ray.serving.http.server import HttpEdge
from flashsd_ray.serving.http.server import start as start_http
from flashsd_ray.serving.protection import Gatekeeper


class EdgesHere(Reached):
    """Edges that can be lost: each has a router of its own, and what it knew goes with it."""

    def __init__(self, config: Config, fleet: Any) -> None:
        host = config.serving.host
        super().__init__(f"http://{host}:{config.serving.http_port}/v1", f"{host}:{config.serving.grpc_port}")
        self._config, self._fleet = config, fleet
        self._http: tuple[HttpEdge, FleetService] | None = None
        self._grpc: tuple[GrpcEdge, FleetService] | None = None
        self._num_opened = 0

    async def open(self, target: Target) -> None:
        """The edge answers.

        Raises:
            UnavailableError: no lane came up in time.
        """
        config = self._config
        service = await FleetService.connect(
            self._fleet, timeout_s=config.placement.start_timeout_s, placement=config.placement
        )
        self._num_opened += 1
        if target == "http-edge":
            app = build_app(service, config, Gatekeeper(config.serving))
            self._http = await start_http(app, config), service
        else:
            self._grpc = await open_grpc_edge(service, config), service

    async def parts(self) -> Mapping[str, Any]:
        """Handles of lanes, encoders and drafters, by name."""
        found: Mapping[str, Any] = await self._fleet.parts.remote()
        return found

    async def identity(self, target: Target) -> str:
        """Which edge there is now: they are counted."""
        return str(self._num_opened)

    async def kill(self, target: Target, pick: float = 0.0) -> str:
        """The edge has dropped everything at once, and another one is there."""
        before = await self.identity(target)
        await self.close(target)
        await self.open(target)
        return before

    async def close(self, target: Target) -> None:
        """The edge is gone."""
        if target == "http-edge" and self._http is not None:
            edge, service = self._http
            await service.close()
            await edge.stop()
        elif target == "grpc-edge" and self._grpc is not None:
            grpc_edge, service = self._grpc
            await grpc_edge.stop(0)
            await service.close()


@asynccontextmanager
async def edges_here(config: Config) -> AsyncIterator[EdgesHere]:
    """Both edges answer for a fleet of their own; after the block its actors have ended.

    Raises:
        UnavailableError: no lane came up in time.
    """
    fleet: Any = ray.remote(Fleet).options(num_cpus=0, max_concurrency=100).remote(config, CHAOS_KINDS)
    edges = EdgesHere(config, fleet)
    try:
        for target in EDGES:
            await edges.open(target)
        yield edges
    finally:
        for target in EDGES:
            await edges.close(target)
        await fleet.close.remote()
        ray.kill(fleet)


EDGES: tuple[Target, ...] = ("http-edge", "grpc-edge")
