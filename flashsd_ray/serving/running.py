"""Where a running server can be reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The addresses of both edges."""

    host: str
    http_port: int
    grpc_port: int
    is_tls: bool = False

    @property
    def http_url(self) -> str:
        """What OpenAI clients take as their base address."""
        return f"{'https' if self.is_tls else 'http'}://{_as_host(self.host)}:{self.http_port}/v1"

    @property
    def grpc_address(self) -> str:
        """What gRPC clients connect to."""
        return f"{_as_host(self.host)}:{self.grpc_port}"


def _as_host(host: str) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{reachable}]" if ":" in reachable else reachable
