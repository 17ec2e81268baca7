"""The application on a socket: TLS, certificates of clients, ports, and a stop that lets answers end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from flashsd_ray.config import Config, ServingConfig
from flashsd_ray.errors import ConfigError
from flashsd_ray.serving.http.app import build_app
from flashsd_ray.serving.http.server import HttpEdge, start
from flashsd_ray.serving.protection import Gatekeeper
from tests.redis_server import Certificates, make_certificates
from tests.unit.serving_http.conftest import WatchedService

GOOD = {"messages": [{"role": "user", "content": "hello world"}]}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def running(service: WatchedService | None = None, **serving: Any) -> AsyncIterator[HttpEdge]:
    config = Config(serving=ServingConfig(**{"http_port": 0, **serving}))
    edge = await start(build_app(service or WatchedService(), config, Gatekeeper(config.serving)), config)
    try:
        yield edge
    finally:
        await edge.stop()


async def health(url: str, trust: ssl.SSLContext | bool = True) -> int:
    async with aiohttp.ClientSession() as client, client.get(f"{url}/healthz", ssl=trust) as response:
        return response.status


async def test_tls(certificates: Certificates) -> None:
    trust = ssl.create_default_context(cafile=certificates.authority)
    served = running(tls_certificate=str(certificates.certificate), tls_key=str(certificates.key))
    async with served as edge:
        assert await health(f"https://localhost:{edge.port}", trust) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await health(f"https://localhost:{edge.port}")
        with pytest.raises(aiohttp.ClientError):
            await health(f"http://localhost:{edge.port}")


async def test_clients_show_a_certificate(certificates: Certificates) -> None:
    served = running(
        tls_certificate=str(certificates.certificate),
        tls_key=str(certificates.key),
        tls_client_ca=str(certificates.authority),
    )
    trust = ssl.create_default_context(cafile=certificates.authority)
    async with served as edge:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await health(f"https://localhost:{edge.port}", trust)
        trust.load_cert_chain(certificates.certificate, certificates.key)
        assert await health(f"https://localhost:{edge.port}", trust) == 200


async def test_a_certificate_that_cannot_be_used_is_named(certificates: Certificates, tmp_path: Path) -> None:
    for certificate, key in (
        (tmp_path / "missing", certificates.key),
        (certificates.key, certificates.certificate),
        (certificates.certificate, certificates.authority),
    ):
        with pytest.raises(ConfigError, match=r"serving\.tls_certificate"):
            async with running(tls_certificate=str(certificate), tls_key=str(key)):
                pass


async def test_a_port_that_is_taken_is_named() -> None:
    async with running() as edge:
        assert edge.port > 0
        with pytest.raises(ConfigError, match=r"serving\.http_port"):
            async with running(http_port=edge.port):
                pass


async def test_an_unknown_host_or_an_unreadable_setting_stops_the_start() -> None:
    with pytest.raises(ConfigError, match=r"serving\.host"):
        async with running(host="no.such.host.invalid"):
            pass
    with pytest.raises(ConfigError, match=r"serving\.allowed_hosts"):
        async with running(allowed_hosts=("https://example.org/",)):
            pass


async def test_open_answers_end_before_the_server_does() -> None:
    service = WatchedService()
    service.gate.clear()
    async with running(service) as edge, aiohttp.ClientSession() as client:
        url = f"http://127.0.0.1:{edge.port}/v1/chat/completions"
        asking = asyncio.create_task(client.post(url, json=GOOD))
        await service.begun.wait()
        stopping = asyncio.create_task(edge.stop())
        with suppress(aiohttp.ClientConnectorError):
            while await health(f"http://127.0.0.1:{edge.port}"):  # until the server has closed its door
                pass
        assert not stopping.done()
        service.gate.set()
        response = await asking
        assert (await response.json())["choices"][0]["message"]["content"] == "0 frames: hello world"
        await stopping


async def test_answers_that_do_not_end_are_cancelled() -> None:
    service = WatchedService()
    service.gate.clear()
    async with running(service, drain_timeout_s=0) as edge, aiohttp.ClientSession() as client:
        asking = asyncio.create_task(client.post(f"http://127.0.0.1:{edge.port}/v1/chat/completions", json=GOOD))
        await service.begun.wait()
        await edge.stop()
        await service.ended.wait()
        response = await asking
        assert response.status == 503
        assert response.headers["retry-after"] == "1"
        assert (await response.json())["error"]["code"] == "unavailable"


async def test_headers_have_a_size() -> None:
    async with running() as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"x" * 1_000_000)
        assert b" 400 " in await reader.readline()
        writer.close()


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(ConfigError, match="go together"):
        ServingConfig(tls_certificate="certificate")
    with pytest.raises(ConfigError, match=r"serving\.default_max_new_tokens"):
        ServingConfig(default_max_new_tokens=0)
