"""A real redis-server for tests: on a free port or a Unix socket, in a directory of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

BINARY = shutil.which("redis-server")
START_TIMEOUT_S = 20.0
NO_RETRY = Retry(NoBackoff(), 0)

needs_redis = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of an authority and of a server that it vouches for."""

    authority: Path
    certificate: Path
    key: Path


class RedisServer:
    """Runs within ``with``; forgets everything when it is killed, unless it is ``durable``."""

    def __init__(
        self,
        *,
        unix_socket: bool = False,  # listen there and on no port
        password: str = "",
        tls: Certificates | None = None,  # listen with TLS and not without
        durable: bool = False,
    ) -> None:
        self.password = password
        self.tls = tls
        self._durable = durable
        self._directory = Path(tempfile.mkdtemp(prefix="redis"))
        self.socket_path = self._directory / "redis.sock" if unix_socket else None
        self.port = 0 if unix_socket else free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What stores.url is set to for this server."""
        identity = f":{self.password}@" if self.password else ""
        if self.socket_path is not None:
            return f"unix://{identity}{self.socket_path}"
        return f"{'redis' if self.tls is None else 'rediss'}://{identity}localhost:{self.port}/0"

    def client(self) -> Redis:
        """A plain client, for looking behind the code under test."""
        options = {"password": self.password or None, "retry": NO_RETRY, "socket_timeout": START_TIMEOUT_S}
        if self.socket_path is not None:
            return Redis(unix_socket_path=str(self.socket_path), **options)
        if self.tls is not None:
            options |= {"ssl": True, "ssl_ca_certs": str(self.tls.authority)}
        return Redis(host="localhost", port=self.port, **options)

    def start(self) -> None:
        """The server answers PING."""
        assert BINARY is not None
        command = [BINARY, *self._options()]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self._directory, stdout=log, stderr=subprocess.STDOUT)
        end_s = time.monotonic() + START_TIMEOUT_S
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except RedisError:
                    ended = self._process.poll() is not None
                    if ended or time.monotonic() > end_s:
                        raise RuntimeError((self._directory / "log").read_text(encoding="utf-8")) from None
                    time.sleep(0.01)

    def kill(self) -> None:
        """The server is gone from one moment to the next, and its socket refuses connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Killed, and started again at the same address."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """The server hangs: connections stay, and no answer comes."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """The server answers again, also what it was asked while it hung."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _options(self) -> list[str]:
        plain_port = 0 if self.tls is not None else self.port
        options = ["--port", str(plain_port), "--bind", "127.0.0.1", "-::1", "--save", "", "--daemonize", "no"]
        if self.socket_path is not None:
            options += ["--unixsocket", str(self.socket_path)]
        if self.password:
            options += ["--requirepass", self.password]
        if self.tls is not None:
            options += ["--tls-port", str(self.port), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", str(self.tls.certificate), "--tls-key-file", str(self.tls.key)]
        if self._durable:
            options += ["--appendonly", "yes", "--appendfsync", "always"]
        return options


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def make_certificates(folder: Path) -> Certificates:
    """A new authority, and a certificate for localhost, the name alone, signed by it."""
    authority, authority_key = folder / "ca.pem", folder / "ca.key"
    certificate, key, request = folder / "server.pem", folder / "server.key", folder / "server.csr"
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\n", encoding="utf-8")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    usage = ["-addext", "keyUsage=critical,keyCertSign"]
    _openssl("req", "-x509", *new_key, *usage, "-keyout", authority_key, "-out", authority, "-subj", "/CN=test CA")
    _openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost")
    signed_by = ["-CA", authority, "-CAkey", authority_key, "-CAcreateserial", "-extfile", extensions]
    _openssl("x509", "-req", "-in", request, *signed_by, "-out", certificate)
    return Certificates(authority=authority, certificate=certificate, key=key)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
