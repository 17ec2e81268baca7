"""Connections to Redis on which a whole call, not just each of its steps, ends in time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Connection, ConnectionPool, UnixDomainSocketConnection

from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import ConfigError
from flashsd_ray.stores.redis_address import RedisAddress

# Callers are worker threads, and each holds one connection at a time.
_MAX_CONNECTIONS = 10_000


class Deadline(threading.local):
    """The moment by which the call that runs in this thread must have ended."""

    _end_s: float | None = None

    @contextmanager
    def within(self, limit_s: float) -> Iterator[None]:
        """What runs inside has so many seconds for all of its steps together."""
        self._end_s = time.monotonic() + limit_s
        try:
            yield
        finally:
            self._end_s = None

    def remaining_s(self) -> float | None:
        """The seconds that are left; None outside of any call.

        Raises:
            TimeoutError: none are.
        """
        if self._end_s is None:
            return None
        remaining_s = self._end_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        return remaining_s


class _TimedSocket:
    """A socket whose every step takes what is left of the call; the timeouts that the library sets give way to it."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._only_looks = False

    def settimeout(self, timeout_s: float | None) -> None:
        self._only_looks = timeout_s == 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        return self._ready().recv(size, flags)

    def recv_into(self, buffer: bytearray, num_bytes: int = 0, flags: int = 0) -> int:
        return self._ready().recv_into(buffer, num_bytes, flags)

    def sendall(self, data: bytes) -> None:
        self._ready().sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def _ready(self) -> socket.socket:
        self._sock.settimeout(0.0 if self._only_looks else self._deadline.remaining_s())
        return self._sock


class _TimedConnection(Connection):
    """A connection over the network, with or without TLS."""

    def __init__(self, *, deadline: Deadline, tls: ssl.SSLContext | None, **options: Any) -> None:
        self._deadline = deadline
        self._tls = tls
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def _connect(self) -> _TimedSocket:
        self.socket_timeout = self.socket_connect_timeout = self._deadline.remaining_s()
        sock = super()._connect()  # type: ignore[no-untyped-call]
        if self._tls is not None:
            sock.settimeout(self._deadline.remaining_s())
            sock = self._tls.wrap_socket(sock, server_hostname=self.host)
        return _TimedSocket(sock, self._deadline)


class _TimedUnixConnection(UnixDomainSocketConnection):
    """A connection over a Unix socket."""

    def __init__(self, *, deadline: Deadline, **options: Any) -> None:
        self._deadline = deadline
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def _connect(self) -> _TimedSocket:
        self.socket_timeout = self.socket_connect_timeout = self._deadline.remaining_s()
        return _TimedSocket(super()._connect(), self._deadline)  # type: ignore[no-untyped-call]


def make_pool(address: RedisAddress, config: StoresConfig, deadline: Deadline) -> ConnectionPool:
    """Connections to the address that keep to the deadline; none is open yet.

    Raises:
        ConfigError: stores.tls_ca cannot be used.
    """
    options: dict[str, Any] = {
        "deadline": deadline,
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "protocol": 2,  # spares a greeting that older servers do not know
        "max_connections": _MAX_CONNECTIONS,
    }
    if address.path:
        return ConnectionPool(connection_class=_TimedUnixConnection, path=address.path, **options)
    tls = _tls_context(config.tls_ca) if address.is_tls else None
    return ConnectionPool(connection_class=_TimedConnection, host=address.host, port=address.port, tls=tls, **options)


def _tls_context(authorities: str) -> ssl.SSLContext:
    """Checks certificates and host names, against these authorities or else those of the system."""
    try:
        return ssl.create_default_context(cafile=authorities or None)
    except OSError as error:
        raise ConfigError(f"stores.tls_ca: {authorities} holds no certificates: {error.strerror or error}") from None
