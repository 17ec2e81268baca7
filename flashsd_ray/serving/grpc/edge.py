"""A plain gRPC server around the servicer: TLS, health, reflection, and bounds on what a connection may cost."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.config import Config, ServingConfig
from flashsd_ray.errors import ConfigError
from flashsd_ray.serving.grpc.credentials import server_credentials
from flashsd_ray.serving.grpc.handlers import SERVICE, add_to_server
from flashsd_ray.serving.grpc.health import Health
from flashsd_ray.serving.grpc.servicer import CaptioningServicer
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.sessions.keeper import SessionKeeper
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.stores.store import Store, open_store

# How often those who watch the health service are brought up to date.
HEALTH_PERIOD_S = 2.0


class GrpcEdge:
    """A server that answers requests until it is stopped."""

    def __init__(
        self,
        server: grpc.aio.Server,
        servicer: CaptioningServicer,
        health: Health,
        *,
        port: int,
        drain_timeout_s: float,
    ) -> None:
        self.port = port  # that clients connect to
        self.store: Store | None = None  # where sessions are kept; closed with the edge
        self._server, self._servicer, self._health = server, servicer, health
        self._drain_timeout_s = drain_timeout_s

    async def stop(
        self,
        grace_s: float | None = None,  # how long open requests may go on; None: serving.drain_timeout_s
    ) -> None:
        """Health is NOT_SERVING, new requests are refused, and nothing is open any more."""
        await self._health.drain()
        self._servicer.drain()
        await self._server.stop(self._drain_timeout_s if grace_s is None else grace_s)
        if self.store is not None:
            self.store.close()


async def open_grpc_edge(
    service: CaptionService,
    config: Config,
    gatekeeper: Gatekeeper | None = None,  # shared with other edges of this process; None: one of its own
) -> GrpcEdge:
    """The service is reachable by gRPC as the config says.

    Raises:
        ConfigError: the files of keys or for TLS cannot be used, or nobody can listen on that address.
    """
    gatekeeper = gatekeeper or Gatekeeper(config.serving)
    store = open_store(config.stores)
    is_kept = store.is_shared and config.sessions.keep_in_store
    sessions = SessionRegistry(config, keeper=SessionKeeper(store, config) if is_kept else None)
    edge = await start(CaptioningServicer(service, config, gatekeeper, sessions=sessions), config.serving)
    edge.store = store
    return edge


async def start(
    servicer: CaptioningServicer, config: ServingConfig, *, health_period_s: float = HEALTH_PERIOD_S
) -> GrpcEdge:
    """The servicer is reachable at ``serving.host`` and the edge's port.

    Raises:
        ConfigError: the files for TLS cannot be used, or nobody can listen on that address.
    """
    credentials = server_credentials(config)
    server = grpc.aio.server(options=_options(config))
    state = Health(servicer.is_ready, (SERVICE.full_name,), health_period_s)
    add_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    port = _listen(server, config, credentials)
    await state.start()
    await server.start()
    return GrpcEdge(server, servicer, state, port=port, drain_timeout_s=config.drain_timeout_s)


def _listen(server: grpc.aio.Server, config: ServingConfig, credentials: grpc.ServerCredentials | None) -> int:
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"{host}:{config.grpc_port}"
    try:
        return server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"serving.host and serving.grpc_port: nobody can listen on {address}") from error


def _options(config: ServingConfig) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", config.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        # Of one connection: beyond it requests wait unsent. Twice the bound leaves room for telling them that it is full.
        ("grpc.max_concurrent_streams", 2 * config.max_open_requests),
        ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, not a way to share load
    ]
    if config.keepalive_s:
        period_ms = round(config.keepalive_s * 1000)
        options += [
            ("grpc.keepalive_time_ms", period_ms),
            ("grpc.keepalive_timeout_ms", period_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            # Clients may give signs of life as often as the server does; gRPC's own limit is five minutes.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", period_ms // 2),
        ]
    return options
