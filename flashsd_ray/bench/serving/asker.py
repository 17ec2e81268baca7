"""A client of one edge, for the load generator."""

from __future__ import annotations

from typing import Protocol

from flashsd_ray.bench.serving.asks import Ask, Edge, Now, Outcome


class Asker(Protocol):
    """Sends requests through one edge and sees what becomes of them."""

    async def open(self) -> None:
        """The server can be reached, and what a client learns only once is learned."""
        ...

    async def ask(self, ask: Ask, now: Now) -> Outcome:
        """What became of the request; nothing is raised, and nothing is sent twice."""
        ...

    async def close(self) -> None:
        """No connection is open."""
        ...


def asker_of(
    edge: Edge,
    address: str,
    authority: str = "",  # PEM file that the server's certificate is checked against; empty: the system's, or no TLS
) -> Asker:
    """A client of the edge at this address: a URL that ends in /v1, or host:port."""
    if edge == "http":
        from flashsd_ray.bench.serving.http_asker import HttpAsker

        return HttpAsker(address, authority)
    from flashsd_ray.bench.serving.grpc_asker import GrpcAsker

    return GrpcAsker(address, authority)
