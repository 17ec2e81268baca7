"""The server that is measured: started as an operator starts it, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from flashsd_ray.bench.serving.asks import Edge
from flashsd_ray.bench.serving.processes import process
from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError, UnavailableError

if TYPE_CHECKING:
    from flashsd_ray.serving.running import Running

GRACE_S = 90.0  # what is open is finished, and Ray takes its time


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is reached, and which process it is."""

    http_url: str  # ends in /v1
    grpc_address: str
    pid: int  # all its processes descend from this one

    def address(self, edge: Edge) -> str:
        """What a client of the edge connects to."""
        return self.http_url if edge == "http" else self.grpc_address

    @property
    def ready_url(self) -> str:
        """Where the server says how its lanes stand."""
        return f"{self.http_url.removesuffix('/v1')}/readyz"


@contextmanager
def server(
    config: Config,
    *,
    address: str | None = None,  # of a Ray cluster; None: whatever the placement asks for is started
) -> Iterator[Server]:
    """A server with this configuration answers; after the block all its processes have ended.

    Raises:
        FlashSDError: it did not come up; the message says why.
    """
    with process(_serve, config, address, grace_s=GRACE_S) as (pipe, pid):
        try:
            answer: Running | FlashSDError = pipe.recv()
        except EOFError:
            raise UnavailableError("the server's process has ended before it was ready") from None
        if isinstance(answer, FlashSDError):
            raise answer
        yield Server(http_url=answer.http_url, grpc_address=answer.grpc_address, pid=pid)


def _serve(pipe: Connection, config: Config, address: str | None) -> None:
    try:
        # Whoever closes the other end wants the server no more.
        with _running(config, address) as where, suppress(EOFError, ConnectionError):
            pipe.send(where)
            pipe.recv()
    except FlashSDError as error:
        with suppress(ConnectionError):
            pipe.send(error)


@contextmanager
def _running(config: Config, address: str | None) -> Iterator[Running]:
    if config.placement.kind == "local":
        from flashsd_ray.serving.local import running as running_here

        with running_here(config) as where:
            yield where
        return
    from flashsd_ray.serving.application.run import running as running_on_ray

    with running_on_ray(config, address=address) as where:
        yield where
