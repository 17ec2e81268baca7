"""Addresses in requests: what the operator allowed is fetched, whole and bounded; everything else is refused by name."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import ConfigError, FlashSDError, MediaError, MediaLimitError, RefusedAddressError
from flashsd_ray.serving.addresses import AllowedHosts, fetch
from flashsd_ray.serving.addresses.hosts import is_public

CONFIG = ServingConfig(max_body_bytes=1000, fetch_timeout_s=5.0)
PUBLIC = "93.184.216.34"


class Website:
    """A real HTTP server on a loopback port."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        path = head.split()[1]
        if path == "/silent":
            await reader.read()  # until the other side gives up
        elif path == "/endless":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"64\r\n" + b"x" * 100 + b"\r\n")
                await writer.drain()
        else:
            writer.write(PAGES[path])
        writer.close()

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"


PAGES = {
    "/picture": b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\npicture",
    "/picture?signature=secret": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "/moved": b"HTTP/1.1 302 Found\r\nLocation: /picture\r\nContent-Length: 0\r\n\r\n",
    "/large": b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
    "/largest": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000,
    "/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxxx",
    "/zipped": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxxx",
    "/noise": b"\x00\x01\x02\r\n\r\n",
}


@asynccontextmanager
async def website() -> AsyncIterator[Website]:
    site = Website()
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()


def allowing(*entries: str) -> ServingConfig:
    return replace(CONFIG, allowed_hosts=entries)


def leading_to(*addresses: str) -> object:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolve


async def refusal(url: str, config: ServingConfig = CONFIG, **options: object) -> FlashSDError:
    with pytest.raises(FlashSDError) as caught:
        await fetch(url, config, **options)  # type: ignore[arg-type]
    return caught.value


# ------------------------------------------------------------------------------------------------------------- data:


@given(content=st.binary(max_size=50))
def test_a_data_address_gives_its_content(content: bytes) -> None:
    encoded = base64.b64encode(content).decode()
    for text in (encoded, encoded.replace("=", "%3D").replace("+", "%2b").replace("/", "%2F")):
        assert asyncio.run(fetch(f"data:image/png;base64,{text}", CONFIG)) == content


@pytest.mark.parametrize("num_bytes", [999, 1000, 1001, 1002])
async def test_a_data_address_may_be_as_large_as_the_limit(num_bytes: int) -> None:
    url = f"data:;base64,{base64.b64encode(bytes(num_bytes)).decode()}"
    if num_bytes <= CONFIG.max_body_bytes:
        assert len(await fetch(url, CONFIG)) == num_bytes
    else:
        assert "serving.max_body_bytes" in str(await refusal(url))


async def test_what_other_pictures_took_is_gone() -> None:
    assert isinstance(await refusal("data:;base64,AAAA", max_bytes=2), MediaLimitError)
    assert await fetch("data:;base64,AAAA", CONFIG, max_bytes=3) == bytes(3)


@pytest.mark.parametrize("url", ["data:", "data:,text", "data:image/png,AAAA", "data:;base64,A", "data:;base64,é!"])
async def test_other_data_addresses_are_damaged(url: str) -> None:
    assert type(await refusal(url)) is MediaError


# ------------------------------------------------------------------------------------------------------ other schemes


@pytest.mark.parametrize("url", ["", "x", "ftp://example.org/x", "javascript:1", "/etc/passwd", "gopher://127.0.0.1"])
async def test_other_schemes_are_refused(url: str) -> None:
    assert isinstance(await refusal(url), RefusedAddressError)


async def test_an_address_has_a_length() -> None:
    assert isinstance(await refusal("https://example.org/" + "x" * 10_000), RefusedAddressError)


# ------------------------------------------------------------------------------------------------------------- http:


async def test_nothing_is_fetched_from_hosts_that_are_not_named() -> None:
    async with website() as site:
        error = await refusal(f"http://{site.authority}/picture")
        assert isinstance(error, RefusedAddressError)
        assert "serving.allowed_hosts" in str(error)
        assert site.requests == []


async def test_a_host_named_with_its_port_is_fetched_from_wherever_it_is() -> None:
    async with website() as site:
        assert await fetch(f"http://{site.authority}/picture", allowing(site.authority)) == b"picture"
        named = allowing(f"pictures.lan:{site.port}")
        url = f"HTTP://Pictures.LAN:{site.port}/picture"
        assert await fetch(url, named, resolve=leading_to("127.0.0.1")) == b"picture"  # type: ignore[arg-type]
        assert "host: pictures.lan" in site.requests[1].lower()


@pytest.mark.parametrize("private", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0"])
async def test_a_name_must_not_lead_to_a_private_address(private: str) -> None:
    config = allowing("example.org", "*.example.net")
    for url in ("http://example.org/picture", "https://a.b.example.net/picture"):
        for addresses in ([private], [PUBLIC, private]):
            error = await refusal(url, config, resolve=leading_to(*addresses))
            assert isinstance(error, RefusedAddressError)
            assert "not public" in str(error)
            assert private not in str(error)  # how the network looks inside is nobody's business


async def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    # A name that is public when it is checked and private when it is connected to. Nothing public is reached in tests,
    # so the address that was checked is seen in the attempt to connect to it.
    answers = [[PUBLIC], ["127.0.0.1"]]
    asked: list[str] = []
    connected: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers.pop(0)

    async def connect(self: object, sock: socket.socket, address: tuple[str, int]) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(type(loop), "sock_connect", connect)
    error = await refusal("http://example.org/picture", allowing("example.org"), resolve=rebinding)
    assert type(error) is MediaError
    assert asked == ["example.org"]
    assert connected == [PUBLIC]


async def test_redirects_are_refused() -> None:
    async with website() as site:
        error = await refusal(f"http://{site.authority}/moved", allowing(site.authority))
        assert isinstance(error, RefusedAddressError)
        assert "redirects" in str(error)
        assert len(site.requests) == 1


async def test_a_body_is_read_up_to_the_limit() -> None:
    async with website() as site:
        config = allowing(site.authority)
        assert len(await fetch(f"http://{site.authority}/largest", config)) == config.max_body_bytes
        for page in ("/large", "/endless"):
            error = await refusal(f"http://{site.authority}{page}", config)
            assert isinstance(error, MediaLimitError)
            assert "serving.max_body_bytes" in str(error)


async def test_a_silent_host_is_left_after_a_while() -> None:
    async with website() as site:
        config = replace(allowing(site.authority), fetch_timeout_s=0.05)
        error = await refusal(f"http://{site.authority}/silent", config)
        assert isinstance(error, MediaLimitError)
        assert "serving.fetch_timeout_s" in str(error)


async def test_a_slow_name_server_counts_too() -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    config = replace(allowing("example.org"), fetch_timeout_s=0.01)
    assert "serving.fetch_timeout_s" in str(await refusal("http://example.org", config, resolve=never))


@pytest.mark.parametrize("page", ["/picture?signature=secret", "/cut", "/zipped", "/noise"])
async def test_a_host_that_has_nothing_good_is_named(page: str) -> None:
    async with website() as site:
        error = await refusal(f"http://{site.authority}{page}", allowing(site.authority))
        assert type(error) is MediaError
        assert site.authority in str(error)
        assert "secret" not in str(error)


async def test_nobody_is_home() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        authority = f"127.0.0.1:{taken.getsockname()[1]}"
        assert type(await refusal(f"http://{authority}/", allowing(authority))) is MediaError
        error = await refusal("http://example.org/", allowing("example.org"), resolve=leading_to())
        assert type(error) is MediaError


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///picture",
        "http://example.org:99999/",
        "http://example.org\\@evil.example/",
        "http://evil.example\\.example.org/",
        "http://user@example.org/",
        "http://example.org:password@evil.example/",
        "http://example.org.evil.example/",
        "http://evilexample.org/",
        "http://example.org./",
        "http://example.org:8080/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "http://[fe80::1%25eth0]/",
        "http://localhost/",
    ],
)
async def test_tricks_with_hosts_are_refused(url: str) -> None:
    async def unexpected(host: str, port: int) -> Sequence[str]:
        raise AssertionError(f"{host} was looked up")

    config = allowing("example.org", "*.example.org", "127.0.0.1")
    assert isinstance(await refusal(url, config, resolve=unexpected), MediaError | RefusedAddressError)


# ----------------------------------------------------------------------------------------------- serving.allowed_hosts


def test_the_forms_of_allowed_hosts() -> None:
    hosts = AllowedHosts.of(["Example.org", "*.example.net", "10.0.0.1", "[::1]", "media.lan:9000", "[fd00::1]:80"])

    def grant(host: str, port: int = 80) -> bool | None:
        try:
            return hosts.may_be_private(host, port, is_default_port=port == 80)
        except RefusedAddressError:
            return None

    assert grant("example.org") is grant("EXAMPLE.org") is False
    assert grant("a.example.net") is grant("a.b.example.net") is False
    assert grant("10.0.0.1") is grant("::1") is grant("0:0::1") is True
    assert grant("media.lan", 9000) is grant("fd00::1") is True
    refused = ["example.net", "a.example.org", "media.lan", "10.0.0.2", "fd00::2", "xexample.net", ""]
    assert [grant(host) for host in refused] == [None] * len(refused)
    assert grant("example.org", 81) is grant("10.0.0.1", 81) is grant("media.lan", 9001) is None


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "https://example.org", "example.org/x", "a b", "*.example.org:80", "x:0", "x:70000", "é.org"],
)
def test_other_forms_are_refused_at_the_start(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"serving\.allowed_hosts"):
        AllowedHosts.of([entry])


PRIVATE = [
    *("127.0.0.1", "10.1.1.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254"),
    *("fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1"),
    "2001:db8::1",
]


def test_which_addresses_are_public() -> None:
    assert [address for address in PRIVATE if is_public(address)] == []
    assert all(is_public(address) for address in ("8.8.8.8", PUBLIC, "2606:4700::1111", "2a00:1450::1"))


# ------------------------------------------------------------------------------------------------------------- file:


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory with one picture, beside one that is private."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")
    directory = tmp_path / "shared"
    directory.mkdir()
    (directory / "a picture").write_bytes(b"picture")
    return directory


def with_directory(directory: Path) -> ServingConfig:
    return replace(CONFIG, allowed_directories=(str(directory),))


async def test_a_file_below_an_allowed_directory_is_read(shared: Path) -> None:
    below = shared / "x" / "y"
    below.mkdir(parents=True)
    (below / "deep").write_bytes(b"deep")
    (shared / "link").symlink_to(below / "deep")
    alias = shared.parent / "alias"
    alias.symlink_to(shared)
    config = with_directory(alias)
    assert await fetch(f"file://{shared}/a%20picture", config) == b"picture"
    assert await fetch(f"file://localhost{shared}/link", config) == b"deep"
    assert await fetch(f"file:{alias}/x/../x/y/deep", config) == b"deep"


async def test_no_file_is_read_unless_a_directory_is_named(shared: Path) -> None:
    error = await refusal(f"file://{shared}/a%20picture")
    assert isinstance(error, RefusedAddressError)
    assert "serving.allowed_directories" in str(error)


@pytest.mark.parametrize(
    "path",
    [
        "/../private/key",
        "/%2e%2e/private/key",
        "/..%2fprivate%2fkey",
        "/out",
        "/outside/key",
        "/../private/missing",
        "-other/key",
        "",
        "/",
        "/a%00b",
        "/a%20picture?x",
        "/loop",
    ],
)
async def test_paths_that_lead_out_are_refused(shared: Path, path: str) -> None:
    (shared / "out").symlink_to(shared.parent / "private" / "key")
    (shared / "outside").symlink_to(shared.parent / "private")
    (shared / "loop").symlink_to(shared / "loop")
    (shared.parent / "shared-other").mkdir()
    error = await refusal(f"file://{shared}{path}", with_directory(shared))
    # A link to itself lies in the directory, and cannot be opened.
    assert isinstance(error, RefusedAddressError) or (path == "/loop" and type(error) is MediaError)


@pytest.mark.parametrize("url", ["file://otherhost/x", "file:relative", "file:", "file://[", "file://%2fetc/passwd"])
async def test_malformed_file_addresses_are_refused(shared: Path, url: str) -> None:
    assert isinstance(await refusal(url, with_directory(shared)), RefusedAddressError)


async def test_only_regular_files_are_read(shared: Path) -> None:
    os.mkfifo(shared / "pipe")
    (shared / "folder").mkdir()
    for name in ("pipe", "folder"):
        error = await refusal(f"file://{shared}/{name}", with_directory(shared))
        assert isinstance(error, RefusedAddressError)
        assert "regular" in str(error)
    assert type(await refusal(f"file://{shared}/missing", with_directory(shared))) is MediaError


async def test_a_file_may_be_as_large_as_the_limit(shared: Path) -> None:
    (shared / "largest").write_bytes(bytes(1000))
    (shared / "large").write_bytes(bytes(1001))
    assert len(await fetch(f"file://{shared}/largest", with_directory(shared))) == 1000
    assert isinstance(await refusal(f"file://{shared}/large", with_directory(shared)), MediaLimitError)


async def test_a_link_that_appears_after_the_check_leads_nowhere(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shared / "x").mkdir()
    (shared / "x" / "key").write_text("harmless")
    real = os.path.realpath

    def swapping(path: str) -> str:
        found = real(path)
        if path.endswith("/key"):
            (shared / "x").rename(shared / "y")
            (shared / "x").symlink_to(shared.parent / "private")
        return found

    monkeypatch.setattr(os.path, "realpath", swapping)
    assert type(await refusal(f"file://{shared}/x/key", with_directory(shared))) is MediaError
