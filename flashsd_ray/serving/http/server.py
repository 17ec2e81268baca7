"""The HTTP application on a socket, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from flashsd_ray.config import Config, ServingConfig
from flashsd_ray.errors import ConfigError


class HttpEdge:
    """An application that is being served."""

    def __init__(self, server: _Server, listener: socket.socket, serving: asyncio.Task[None]) -> None:
        self._server = server
        self._serving = serving
        self.port: int = listener.getsockname()[1]

    async def stop(self) -> None:
        """Nothing is accepted any more, and open answers have ended or used up ``serving.drain_timeout_s``."""
        self._server.should_exit = True
        await self._serving


async def start(app: ASGIApp, config: Config) -> HttpEdge:
    """The application answers at ``serving.host`` and ``serving.http_port``, behind TLS where that is configured.

    Raises:
        ConfigError: the port cannot be had, or a certificate or key cannot be used.
    """
    server = _Server(_settings(app, config.serving))
    try:
        server.config.load()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"serving.tls_certificate, tls_key or tls_client_ca cannot be used: {error}") from error
    listener = _listener(config.serving)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    edge = HttpEdge(server, listener, serving)
    starting = asyncio.create_task(server.is_up.wait())
    await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        starting.cancel()
        await serving
    return edge


class _Server(uvicorn.Server):
    """Leaves signals to whoever owns the process, and says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


def _settings(app: ASGIApp, config: ServingConfig) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",  # bounds the size of headers, which the faster parsers do not
        ws="none",
        lifespan="auto",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=math.ceil(config.keepalive_s),
        timeout_graceful_shutdown=math.ceil(config.drain_timeout_s),
        ssl_certfile=config.tls_certificate or None,
        ssl_keyfile=config.tls_key or None,
        ssl_ca_certs=config.tls_client_ca or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if config.tls_client_ca else ssl.CERT_NONE,
    )


def _listener(config: ServingConfig) -> socket.socket:
    address = f"serving.host {config.host}, serving.http_port {config.http_port}"
    try:
        found = socket.getaddrinfo(config.host, config.http_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"{address}: cannot listen there: {error}") from error
    return listener
