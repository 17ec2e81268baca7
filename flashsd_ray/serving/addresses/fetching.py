"""From an address to bytes, by its scheme."""

from __future__ import annotations

import asyncio

import anyio

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import MediaLimitError, RefusedAddressError
from flashsd_ray.media.source import printable
from flashsd_ray.serving.addresses.files import read_file
from flashsd_ray.serving.addresses.inline import decode_data
from flashsd_ray.serving.addresses.remote import Resolve, download, system_addresses

_SCHEMES = "data:, https:, http: and file:"
_MAX_LENGTH = 8192  # of an address that does not hold its content; what web servers commonly take


async def fetch(
    url: str,
    config: ServingConfig,
    *,
    max_bytes: int | None = None,  # what is left of serving.max_body_bytes; None: all of it
    resolve: Resolve = system_addresses,
) -> bytes:
    """What the address leads to, whole.

    Raises:
        RefusedAddressError: the operator does not allow the address; the message names the setting.
        MediaLimitError: there is more than ``serving.max_body_bytes``, or it takes longer than
            ``serving.fetch_timeout_s``.
        MediaError: there is nothing to be had, or the address is malformed.
    """
    scheme = url.partition(":")[0].strip().lower()
    limit = config.max_body_bytes if max_bytes is None else min(max_bytes, config.max_body_bytes)
    if scheme != "data" and len(url) > _MAX_LENGTH:
        raise RefusedAddressError(f"an address has at most {_MAX_LENGTH} characters, got {len(url)}")
    try:
        with anyio.fail_after(config.fetch_timeout_s):
            if scheme == "data":
                return await asyncio.to_thread(decode_data, url, limit)
            if scheme == "file":
                return await asyncio.to_thread(read_file, url, config.allowed_directories, limit)
            if scheme in ("http", "https"):
                return await download(url, config.allowed_hosts, limit, resolve)
    except TimeoutError:
        raise MediaLimitError(
            f"{printable(url[:100])}: takes longer than serving.fetch_timeout_s ({config.fetch_timeout_s:g} s)"
        ) from None
    raise RefusedAddressError(f"only {_SCHEMES} addresses are read, got {printable(url[:40])!r}")
