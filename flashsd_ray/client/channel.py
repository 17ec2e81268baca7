"""One connection to a server: its address, its security, its signs of life."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from flashsd_ray.errors import ConfigError

PathText = str | os.PathLike[str]

# Answers are text; this is far beyond the longest one with all its log-probabilities.
MAX_ANSWER_BYTES = 256 * 2**20
KEEPALIVE_TIMEOUT_S = 20.0
# Soon enough that a retry finds a server that has just come up; gRPC's own waits are 1 s and 2 min.
FIRST_RECONNECT_S, LONGEST_RECONNECT_S = 0.1, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a server is reached."""

    address: str  # host:port, or a target as gRPC writes it (dns:///host:port, unix:/path)
    api_key: str = field(default="", repr=False)
    tls: bool = False
    ca: PathText | None = None  # PEM file of certificates that the server's is checked against; None: the system's
    certificate: PathText | None = None  # PEM file that says who this client is; together with key
    key: PathText | None = field(default=None, repr=False)
    keepalive_s: float = 60.0  # time between signs of life while a call is open

    def __post_init__(self) -> None:
        """Raises ConfigError when the address or the certificates cannot be meant like this."""
        if "://" in self.address and not self.address.startswith(("dns://", "unix://")):
            raise ConfigError(f"a server is addressed as host:port, without a scheme; got {self.address!r}")
        if not self.address.rpartition(":")[2] or ":" not in self.address:
            raise ConfigError(f"a server is addressed as host:port; got {self.address!r}")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a client certificate and its key go together")
        if (self.ca is not None or self.certificate is not None) and not self.tls:
            raise ConfigError("certificates are given, but TLS is not switched on")
        if not self.keepalive_s > 0:
            raise ConfigError(f"keepalive_s must be positive, got {self.keepalive_s}")
        if not self.api_key.isascii() or not self.api_key.isprintable():
            raise ConfigError("an API key has only printable ASCII characters")

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What TLS needs; None without it.

        Raises:
            ConfigError: a file cannot be read.
        """
        if not self.tls:
            return None
        return grpc.ssl_channel_credentials(_pem(self.ca), _pem(self.key), _pem(self.certificate))

    def channel(self) -> grpc.aio.Channel:
        """A channel of the running event loop; it connects with its first call.

        Raises:
            ConfigError: a certificate cannot be read.
        """
        credentials = self.credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(self.address, options=self._options())
        return grpc.aio.secure_channel(self.address, credentials, options=self._options())

    def metadata(self, request_id: str = "") -> tuple[tuple[str, str], ...]:
        """What every call says besides its message."""
        pairs = {"authorization": f"Bearer {self.api_key}" if self.api_key else "", "x-request-id": request_id}
        return tuple((name, value) for name, value in pairs.items() if value)

    def _options(self) -> Sequence[tuple[str, int]]:
        return (
            # What the server accepts is learned from it, and then checked before anything is sent.
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", round(FIRST_RECONNECT_S * 1000)),
            ("grpc.max_reconnect_backoff_ms", round(LONGEST_RECONNECT_S * 1000)),
        )


def _pem(path: PathText | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {os.fspath(path)}: {error.strerror}") from error
