"""TLS for the gRPC edge, from the files that the operator names."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import ConfigError


def server_credentials(config: ServingConfig) -> grpc.ServerCredentials | None:
    """What the server proves itself with, and asks of clients; None where TLS is off.

    Raises:
        ConfigError: a file cannot be read, holds something else, or key and certificate do not belong together.
    """
    if not config.tls_key:
        return None
    key = _content("tls_key", config.tls_key)
    certificate = _content("tls_certificate", config.tls_certificate)
    authorities = _content("tls_client_ca", config.tls_client_ca) if config.tls_client_ca else None
    _check_files(config)
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authorities, require_client_auth=authorities is not None
    )


def _content(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"serving.{name}: {path} cannot be read: {reason}") from error


def _check_files(config: ServingConfig) -> None:
    # gRPC takes any bytes for keys and would only fail at the first handshake, without a word to the operator.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password given, an encrypted key is an error instead of a question on the terminal.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"serving.tls_certificate {config.tls_certificate} and serving.tls_key {config.tls_key} "
            f"are no pair of PEM files without a password: {error}"
        ) from error
    if config.tls_client_ca:
        try:
            context.load_verify_locations(config.tls_client_ca)
        except (OSError, ValueError) as error:
            raise ConfigError(f"serving.tls_client_ca: {config.tls_client_ca} holds no certificate: {error}") from error
