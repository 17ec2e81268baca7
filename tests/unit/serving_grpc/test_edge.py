"""The server around the servicer: health, reflection, TLS, addresses, shutdown."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from flashsd_ray.actors.service import ServiceStatus
from flashsd_ray.errors import ConfigError
from flashsd_ray.serving.grpc.edge import open_grpc_edge, start
from flashsd_ray.serving.grpc.servicer import CaptioningServicer
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.wire.v1 import captioning_pb2_grpc
from tests.fake_service import EchoService
from tests.unit.serving_grpc.conftest import Served, configured, error_of, question, serving, until

SERVICE = "flashsd.v1.Captioning"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def _health(served: Served, service: str = SERVICE) -> int:
    stub = health_pb2_grpc.HealthStub(served.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def test_health_is_that_of_the_service(service: EchoService) -> None:
    async with serving(service) as served:
        assert [await _health(served), await _health(served, "")] == [SERVING] * 2
        service.is_ready = False
        assert [await _health(served), await _health(served, "")] == [NOT_SERVING] * 2
        service.is_ready = True
        assert await _health(served) == SERVING
        unknown = health_pb2_grpc.HealthStub(served.channel).Check(health_pb2.HealthCheckRequest(service="other"))
        assert (await error_of(unknown)).code().name == "NOT_FOUND"


async def test_a_service_that_does_not_say_how_it_is_is_not_serving(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(EchoService):
        async def status(self) -> ServiceStatus:
            raise ConnectionError("the lane is gone")

    async with serving(Silent()) as served:
        assert await _health(served) == NOT_SERVING
    assert "the lane is gone" in caplog.text


async def test_who_watches_is_told_of_changes_and_of_the_end(service: EchoService) -> None:
    config = configured()
    servicer = CaptioningServicer(service, config, Gatekeeper(config.serving))
    edge = await start(servicer, config.serving, health_period_s=0.001)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watched.read()).status == SERVING
        service.is_ready = False
        assert (await watched.read()).status == NOT_SERVING
        service.is_ready = True
        assert (await watched.read()).status == SERVING
        await edge.stop(600)  # it does not wait for those who watch
        assert (await watched.read()).status == NOT_SERVING
        assert await watched.read() is grpc.aio.EOF
        assert (await watched.code()).name == "OK"


async def test_watching_a_service_that_is_not_there_says_so(service: EchoService) -> None:
    async with serving(service) as served:
        watched = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(service="other"))
        assert (await watched.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_open_requests_are_answered_when_the_edge_stops(service: EchoService) -> None:
    service.gate.clear()
    async with serving(service) as served:
        asking = asyncio.ensure_future(served.stub.Caption(question("one more")))
        await until(lambda: bool(service.open))
        watched = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watched.read()).status == SERVING
        stopping = asyncio.create_task(served.edge.stop(600))
        assert (await watched.read()).status == NOT_SERVING
        service.gate.set()
        assert (await asking).text == "0 frames: one more"
        await stopping
        late = await error_of(served.stub.Caption(question()))
        assert late.code().name == "UNAVAILABLE"


async def test_what_outlasts_the_grace_is_cancelled(service: EchoService) -> None:
    service.gate.clear()
    async with serving(service) as served:
        asking = asyncio.ensure_future(error_of(served.stub.Caption(question())))
        await until(lambda: bool(service.open))
        await served.edge.stop(0)
        await asking
        await until(lambda: not service.open)


async def test_reflection_describes_the_service_and_what_it_needs(service: EchoService) -> None:
    async with serving(service) as served:
        stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.NoSuchMethod"),
        ]

        async def asked() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            for request in requests:
                yield request

        listed, described, unknown = [answer async for answer in stub.ServerReflectionInfo(asked())]
    names = {one.name for one in listed.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    (serialized,) = described.file_descriptor_response.file_descriptor_proto
    file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    assert [method.name for method in file.service[0].method] == ["Caption", "CaptionStream", "StreamVideo", "GetModel"]
    assert unknown.WhichOneof("message_response") == "error_response"


@dataclass(frozen=True, slots=True)
class Pair:
    """A key and its certificate, as PEM."""

    key: bytes
    certificate: bytes


def _issue(name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None) -> tuple[Pair, tuple]:  # type: ignore[type-arg]
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(pem, certificate.public_bytes(serialization.Encoding.PEM)), (certificate, key)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, and what it signed, also in files."""

    certificate: bytes
    client: Pair
    folder: Path

    @property
    def tls(self) -> dict[str, str]:
        return {"tls_certificate": f"{self.folder}/server.pem", "tls_key": f"{self.folder}/server.key"}

    @property
    def mutual_tls(self) -> dict[str, str]:
        return {**self.tls, "tls_client_ca": f"{self.folder}/authority.pem"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("tls")
    root, issuer = _issue("authority")
    server, client = _issue("server", issuer)[0], _issue("client", issuer)[0]
    (folder / "authority.pem").write_bytes(root.certificate)
    (folder / "server.pem").write_bytes(server.certificate)
    (folder / "server.key").write_bytes(server.key)
    (folder / "other.key").write_bytes(client.key)
    return Authority(root.certificate, client, folder)


async def _asked_over_tls(authority: Authority, tls: dict[str, str], client: Pair | None, service: EchoService) -> str:
    edge = await open_grpc_edge(service, configured(**tls))
    credentials = grpc.ssl_channel_credentials(
        authority.certificate, client.key if client else None, client.certificate if client else None
    )
    try:
        async with grpc.aio.secure_channel(f"localhost:{edge.port}", credentials) as channel:
            stub = captioning_pb2_grpc.CaptioningStub(channel)
            return str((await stub.Caption(question("in secret"))).text)
    finally:
        await edge.stop(0)


async def test_with_a_certificate_the_edge_speaks_tls_only(service: EchoService, authority: Authority) -> None:
    assert await _asked_over_tls(authority, authority.tls, None, service) == "0 frames: in secret"
    async with serving(service, tls=authority.tls) as served:  # over a plain channel
        assert (await error_of(served.stub.Caption(question()))).code().name == "UNAVAILABLE"


async def test_with_an_authority_clients_prove_who_they_are(service: EchoService, authority: Authority) -> None:
    assert await _asked_over_tls(authority, authority.mutual_tls, authority.client, service) == "0 frames: in secret"
    stranger, _ = _issue("stranger")
    for client in (None, stranger):
        error = await error_of(_asked_over_tls(authority, authority.mutual_tls, client, service))
        assert error.code().name == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tls_certificate": "server.pem", "tls_key": "missing.key"}, r"serving.tls_key: .*missing.key cannot be read"),
        ({"tls_certificate": "missing.pem", "tls_key": "server.key"}, r"serving.tls_certificate: .* cannot be read"),
        ({"tls_certificate": "server.pem", "tls_key": "other.key"}, "are no pair"),
        ({"tls_certificate": "server.key", "tls_key": "server.key"}, "are no pair"),
        (
            {"tls_certificate": "server.pem", "tls_key": "server.key", "tls_client_ca": "server.key"},
            "serving.tls_client_ca: .* holds no certificate",
        ),
    ],
)
async def test_files_that_cannot_be_used_are_named(
    service: EchoService, authority: Authority, files: dict[str, str], message: str
) -> None:
    tls = {setting: f"{authority.folder}/{name}" for setting, name in files.items()}
    with pytest.raises(ConfigError, match=message):
        await open_grpc_edge(service, configured(**tls))


async def test_two_edges_do_not_share_a_port(service: EchoService) -> None:
    async with serving(service) as served:
        config = configured(f"serving.grpc_port={served.edge.port}")
        with pytest.raises(ConfigError, match=rf"nobody can listen on 127.0.0.1:{served.edge.port}"):
            await open_grpc_edge(service, config)


async def test_keepalive_can_be_switched_off(service: EchoService) -> None:
    async with serving(service, "serving.keepalive_s=0") as served:
        assert (await served.stub.Caption(question("hello"))).text == "0 frames: hello"
