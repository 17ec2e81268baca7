"""How a server is reached: addresses, certificates, and what is wrong with them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import pytest

from flashsd_ray.client import AsyncClient, Retries
from flashsd_ray.client.channel import Connection
from flashsd_ray.errors import ConfigError, UnavailableError
from tests.unit.client.scripted import Servicer, says, serving


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates that sign themselves, of a server and of a client."""
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "2"]
        command += ["-addext", "subjectAltName=DNS:localhost"]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return directory


async def test_tls_with_certificates_of_both_sides(files: Path) -> None:
    pair = ((files / "server.key").read_bytes(), (files / "server.pem").read_bytes())
    credentials = grpc.ssl_server_credentials((pair,), (files / "client.pem").read_bytes(), True)
    servicer = Servicer()
    servicer.captions.append(says())
    once = Retries(attempts=1)
    async with serving(servicer, credentials) as address:
        own = {"certificate": files / "client.pem", "key": files / "client.key"}
        async with AsyncClient(address, tls=True, ca=files / "server.pem", retries=once, **own) as client:  # type: ignore[arg-type]
            assert (await client.caption((), "Hello?")).text == "a dog"
        for options in ({"ca": files / "server.pem"}, {"ca": files / "client.pem", **own}):
            async with AsyncClient(address, tls=True, retries=once, **options) as client:  # type: ignore[arg-type]
                with pytest.raises(UnavailableError):
                    await client.model()
        async with AsyncClient(address, retries=once) as client:
            with pytest.raises(UnavailableError):
                await client.model()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "localhost"}, "host:port; got 'localhost'"),
        ({"address": "localhost:"}, "host:port"),
        ({"address": ""}, "host:port"),
        ({"address": "http://localhost:9000"}, "without a scheme"),
        ({"certificate": "a.pem", "tls": True}, "go together"),
        ({"ca": "a.pem"}, "TLS is not switched on"),
        ({"ca": "no/such.pem", "tls": True}, "cannot read no/such.pem: No such file"),
        ({"keepalive_s": 0.0}, "keepalive_s must be positive"),
        ({"api_key": "a\nb"}, "printable ASCII"),
        ({"jpeg_quality": 0}, "jpeg_quality"),
    ],
)
def test_settings_that_cannot_be_used(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AsyncClient(**options)  # type: ignore[arg-type]


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Connection(address="localhost:9000", api_key="secret"))
