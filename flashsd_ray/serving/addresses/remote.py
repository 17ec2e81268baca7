"""``http:`` and ``https:`` addresses: the connection goes to the very IP address that was checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from flashsd_ray.errors import MediaError, RefusedAddressError
from flashsd_ray.media.source import printable
from flashsd_ray.serving.addresses.hosts import AllowedHosts, require_public
from flashsd_ray.serving.addresses.inline import too_large

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]  # host and port -> IP addresses

_OK = 200
_REDIRECTS = range(300, 400)
_CHUNK_BYTES = 64 * 2**10


async def system_addresses(host: str, port: int) -> Sequence[str]:
    """The IP addresses that the operating system finds for the host; raises OSError when there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


async def download(
    text: str,
    entries: Sequence[str],  # serving.allowed_hosts
    max_bytes: int,
    resolve: Resolve,
) -> bytes:
    """The body that a GET of the address gives; no redirect is followed.

    Raises:
        RefusedAddressError: the host, its port or its IP addresses are not allowed, or it redirects.
        MediaLimitError: the body has more than ``max_bytes``.
        MediaError: the address is malformed, or the host cannot be reached or has no such thing.
    """
    url = _parsed(text)
    label = printable(str(url.with_query(None).with_fragment(None)))  # a query may hold a signature
    addresses = await _checked_addresses(url, entries, resolve)
    # No proxy, no cookies, no password file: nothing of this machine shapes the request.
    connector = aiohttp.TCPConnector(resolver=_Checked(addresses), use_dns_cache=False, force_close=True)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"Accept-Encoding": "identity", "User-Agent": "flashsd_ray"},
            ) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            _check(response, label)
            return await _body(response, label, max_bytes)
    except (aiohttp.ClientError, OSError) as error:
        raise MediaError(f"{label}: cannot be fetched ({type(error).__name__})") from None


def _parsed(text: str) -> URL:
    try:
        url = URL(text.strip())
    except ValueError as error:
        raise MediaError(f"{printable(text[:100])}: is no address: {error}") from None
    if not url.raw_host or not url.port:
        raise MediaError(f"{printable(text[:100])}: is no address: it names no host")
    if url.raw_user is not None or url.raw_password is not None:
        raise RefusedAddressError("an address must not hold a user name or a password")
    return url


async def _checked_addresses(url: URL, entries: Sequence[str], resolve: Resolve) -> Sequence[str]:
    host, port = url.raw_host or "", url.port or 0
    may_be_private = AllowedHosts.of(entries).may_be_private(host, port, is_default_port=url.is_default_port())
    try:
        addresses = await resolve(host, port)
    except (OSError, UnicodeError):
        addresses = ()
    if not addresses:
        raise MediaError(f"{printable(host)}: no IP address is known for it")
    if not may_be_private:
        require_public(host, addresses)
    return addresses


def _check(response: aiohttp.ClientResponse, label: str) -> None:
    if response.status in _REDIRECTS:
        raise RefusedAddressError(
            f"{label}: redirects elsewhere, which is not followed; serving.allowed_hosts names where fetching may end"
        )
    if response.status != _OK:
        raise MediaError(f"{label}: the host answers with status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MediaError(f"{label}: the host answers with a compressed body, which it was not asked for")


async def _body(response: aiohttp.ClientResponse, label: str, max_bytes: int) -> bytes:
    if (response.content_length or 0) > max_bytes:
        raise too_large(label)
    content = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise too_large(label)
    return bytes(content)


class _Checked(AbstractResolver):
    """Knows the addresses of one host, and asks nobody again."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses, whatever the name leads to by now."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Holds nothing."""
