"""The three deployments: the fleet, the HTTP edge, the gRPC edge.

Ray Serve starts, watches, scales and replaces them, and carries HTTP. The gRPC edge opens a port of its own: Serve's
gRPC proxy has neither TLS nor a health service nor a place to check keys (docs/adr).
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve

from flashsd_ray.actors.metered_service import MeteredService
from flashsd_ray.config import Config
from flashsd_ray.runtime.fleet import Fleet
from flashsd_ray.runtime.meters import RayMeters
from flashsd_ray.runtime.roster import Roster
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.runtime.starting import Kinds
from flashsd_ray.serving.application.autoscaling import OPEN_REQUESTS
from flashsd_ray.serving.grpc.edge import GrpcEdge, open_grpc_edge
from flashsd_ray.serving.http.app import build_app
from flashsd_ray.serving.http.server import HttpEdge as HttpServer
from flashsd_ray.serving.http.server import start as start_http
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.telemetry.logs import log_as
from flashsd_ray.telemetry.metrics import EdgeMeters, page
from flashsd_ray.telemetry.traces import start

ENDING_S = 5.0  # of serving.drain_timeout_s, after which Serve kills: for what follows the draining


class FleetDeployment:
    """Holds the fleet; Serve sees to it that there is exactly one."""

    kinds = Kinds()

    def __init__(self, config: Config) -> None:
        log_as(config.telemetry, "fleet")
        self._fleet = Fleet(config, self.kinds)
        self._exported = RayMeters()
        self._drain_s = max(0.0, config.serving.drain_timeout_s - ENDING_S)

    async def roster(self, known_version: int = -1) -> Roster:
        """The roster as soon as it is newer than the known one, or after a while as it is."""
        return await self._fleet.roster(known_version)

    async def report(self, edge: str, num_open: int) -> None:
        """An edge has so many open requests."""
        await self._fleet.report(edge, num_open)

    async def check_health(self) -> None:
        """Serve asks every few seconds; Ray's metrics are brought up to date on the occasion."""
        self._exported.export_scales(self._fleet.scales)

    async def replace(self, name: str) -> None:
        """A lane or an encoder that could not be reached is looked after."""
        await self._fleet.replace(name)

    async def quarantine(self, key: str) -> None:
        """Every edge refuses requests with this fingerprint."""
        await self._fleet.quarantine(key)

    async def __del__(self) -> None:
        # The edges are being stopped at the same time, and wait for the answers that lanes still owe them.
        await self._fleet.close(self._drain_s)


_app_of_this_replica: list[FastAPI] = []  # a replica is a process of its own


def _http_app() -> FastAPI:
    return _app_of_this_replica[-1]


class _Edge:
    """What both edges share: a way to the fleet, and what they count."""

    _service: FleetService

    async def _connect(self, config: Config, fleet: Any, name: str) -> MeteredService:
        log_as(config.telemetry, name)
        self._traces = start(config.telemetry, name)
        self._meters, self._exported = EdgeMeters(), RayMeters()
        self._service = await FleetService.connect(
            fleet, timeout_s=config.placement.start_timeout_s, placement=config.placement
        )
        return MeteredService(self._service, self._meters, name, traces=self._traces)

    async def check_health(self) -> None:
        """Serve asks every few seconds; Ray's metrics are brought up to date on the occasion."""
        self._exported.export_edges(self._meters)
        self._exported.export_service(await self._service.status())

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What this edge carries, for Serve's autoscaling."""
        return {OPEN_REQUESTS: float(self._service.num_open)}

    async def _disconnect(self) -> None:
        await self._service.close()
        self._traces.close()


def _closed_door() -> FastAPI:
    """What Serve's proxy gets to see where clients must show certificates."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"], status_code=403)
    async def refuse(path: str) -> dict[str, dict[str, str]]:
        message = "client certificates are asked for (serving.tls_client_ca): connect to the edge's own port"
        return {"error": {"message": message, "type": "permission_error"}}

    return app


@serve.ingress(_http_app)
class HttpEdgeDeployment(_Edge):
    """Answers HTTP through Serve's proxy, or on a port of its own where clients must show certificates.

    Serve's proxy takes an authority for client certificates and then asks nobody for one.
    """

    async def __init__(self, config: Config, fleet: Any, grpc_edge: Any) -> None:  # type: ignore[misc]
        """Raises UnavailableError when no lane comes up in time."""
        service = await self._connect(config, fleet, "http")
        self._grpc_edge = grpc_edge  # keeps it part of the application
        app = build_app(
            service,
            config,
            Gatekeeper(config.serving),
            metrics=lambda: page(self._service, self._meters),
            echoes_request_id=bool(config.serving.tls_client_ca),  # Serve's proxy does, where it stands in front
        )
        self._server: HttpServer | None = None
        if config.serving.tls_client_ca:
            self._server = await start_http(app, config)
            app = _closed_door()
        _app_of_this_replica.append(app)

    async def __del__(self) -> None:
        if self._server is not None:
            await self._server.stop()
        await self._disconnect()


class GrpcEdgeDeployment(_Edge):
    """Answers gRPC on a port of its own."""

    async def __init__(self, config: Config, fleet: Any) -> None:  # type: ignore[misc]
        """Raises UnavailableError when no lane comes up in time, ConfigError when the port or a certificate is bad."""
        service = await self._connect(config, fleet, "grpc")
        self._edge: GrpcEdge = await open_grpc_edge(service, config)

    async def port(self) -> int:
        """The port that clients connect to."""
        return self._edge.port

    async def __del__(self) -> None:
        await self._edge.stop()
        await self._disconnect()
