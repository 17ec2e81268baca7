"""Bytes by key: what every store does, whether it is this process's memory or a Redis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from flashsd_ray.config import StoresConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCounts:
    """What a store was asked since it was opened."""

    hits: int = 0  # values asked for and found
    misses: int = 0  # values asked for and not found, for whatever reason
    errors: int = 0  # calls that the store could not carry out


class Store(Protocol):
    """Keeps bytes for a while; may be called from any thread and never raises because the store is lost.

    A value may be gone at any time. One that is larger than stores.max_value_bytes is neither written nor read.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other processes find what is kept here."""
        ...

    @property
    def counts(self) -> StoreCounts:
        """Hits, misses and errors so far."""
        ...

    def get(self, key: str) -> bytes | None:
        """The value under the key; None where there is none."""
        ...

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values of those keys that have one."""
        ...

    def put(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Whether the value is kept now, in place of any other, for ``ttl_s`` seconds."""
        ...

    def add(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Whether there was no value and this one is kept now; of many callers at once one is told so."""
        ...

    def delete(self, key: str) -> None:
        """There is no value under the key; in a store that is lost it may be found again later."""
        ...

    def health(self) -> str:
        """A sentence that says what is wrong; "" where nothing is."""
        ...

    def close(self) -> None:
        """Connections are closed and memory is free; from now on nothing is found."""
        ...


def open_store(config: StoresConfig) -> Store:
    """The store at ``stores.url``; a Redis that cannot be reached now is used as soon as it can.

    Raises:
        ConfigError: the address, or stores.tls_ca, cannot be used.
    """
    if config.url.startswith("memory://"):
        from flashsd_ray.stores.memory import MemoryStore

        return MemoryStore(config)
    from flashsd_ray.stores.redis_store import RedisStore  # imports a library that memory does not need

    return RedisStore(config)
