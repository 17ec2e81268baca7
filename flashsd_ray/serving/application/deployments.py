"""The three deployments: the fleet, the HTTP edge, the gRPC edge.

Ray Serve starts, watches, scales and replaces them, and carries HTTP. The gRPC edge opens a port of its own: Serve's
gRPC proxy has neither TLS nor a health service nor a place to check keys (docs/adr).
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve

from flashsd_ray.config import Config
from flashsd_ray.runtime.fleet import Fleet, Roster
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.serving.grpc.edge import GrpcEdge, open_grpc_edge
from flashsd_ray.serving.http.app import build_app
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.telemetry.logs import log_as


class FleetDeployment:
    """Holds the fleet; Serve sees to it that there is exactly one."""

    def __init__(self, config: Config) -> None:
        log_as(config.telemetry, "fleet")
        self._fleet = Fleet(config)

    async def roster(self, known_version: int = -1) -> Roster:
        """The roster as soon as it is newer than the known one, or after a while as it is."""
        return await self._fleet.roster(known_version)

    async def replace(self, lane_id: str) -> None:
        """A lane that could not be reached is looked after."""
        await self._fleet.replace(lane_id)

    async def __del__(self) -> None:
        await self._fleet.close()


_app_of_this_replica: list[FastAPI] = []  # a replica is a process of its own


def _http_app() -> FastAPI:
    return _app_of_this_replica[-1]


@serve.ingress(_http_app)
class HttpEdgeDeployment:
    """Answers HTTP through Serve's proxy."""

    async def __init__(self, config: Config, fleet: Any, grpc_edge: Any) -> None:
        """Raises UnavailableError when no lane comes up in time."""
        log_as(config.telemetry, "http")
        self._service = await FleetService.connect(fleet, timeout_s=config.placement.start_timeout_s)
        self._grpc_edge = grpc_edge  # keeps it part of the application
        _app_of_this_replica.append(build_app(self._service, config, Gatekeeper(config.serving)))

    async def __del__(self) -> None:
        await self._service.close()


class GrpcEdgeDeployment:
    """Answers gRPC on a port of its own."""

    async def __init__(self, config: Config, fleet: Any) -> None:
        """Raises UnavailableError when no lane comes up in time, ConfigError when the port or a certificate is bad."""
        log_as(config.telemetry, "grpc")
        self._service = await FleetService.connect(fleet, timeout_s=config.placement.start_timeout_s)
        self._edge: GrpcEdge = await open_grpc_edge(self._service, config)

    async def port(self) -> int:
        """The port that clients connect to."""
        return self._edge.port

    async def __del__(self) -> None:
        await self._edge.stop()
        await self._service.close()
