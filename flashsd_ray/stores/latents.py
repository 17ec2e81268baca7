"""Encoded pictures, kept by their content: first in this process, then where other processes find them too."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import WireError
from flashsd_ray.models.visual_cache import MemoryVisualCache
from flashsd_ray.stores.store import Store
from flashsd_ray.types import VisualTokens
from flashsd_ray.wire.codec import VERSION, decode, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentCounts:
    """Where visual tokens were found since the cache was made."""

    memory_hits: int = 0
    store_hits: int = 0
    misses: int = 0
    damaged: int = 0  # misses on something in the store that is no visual tokens of ours


class LatentCache:
    """A VisualCache of two levels: stores.latent_bytes of tensors here, and behind them a store that is shared."""

    def __init__(
        self,
        config: StoresConfig,
        store: Store | None = None,  # None, or one that nobody shares: the first level is all there is
    ) -> None:
        self._config = config
        self._memory = MemoryVisualCache(config.latent_bytes)
        self._store = store if store is not None and store.is_shared else None
        self._counts = LatentCounts()
        self._counting = threading.Lock()

    @property
    def counts(self) -> LatentCounts:
        """Hits and misses so far."""
        return self._counts

    @property
    def num_bytes(self) -> int:
        """Memory that the tensors of the first level take."""
        return self._memory.num_bytes

    def get(self, key: str) -> VisualTokens | None:
        """What was put under the key here or by another process, unless it was forgotten or cannot be reached."""
        tokens = self._memory.get(key)
        if tokens is not None:
            self._count(memory_hits=1)
            return tokens
        data = self._store.get(_name(key)) if self._store is not None else None
        tokens = self._decoded(data) if data is not None else None
        if tokens is None:
            self._count(misses=1, damaged=int(data is not None))
            return None
        self._memory.put(key, tokens)
        self._count(store_hits=1)
        return tokens

    def put(self, key: str, tokens: VisualTokens) -> None:
        """The tokens may be found under the key from now on, by every process that shares the store."""
        self._memory.put(key, tokens)
        if self._store is None or tokens.num_bytes > self._config.max_value_bytes:
            return
        try:
            data = encode(tokens, max_bytes=self._config.max_value_bytes)
        except WireError:
            return
        self._store.put(_name(key), data, self._config.latent_ttl_s)

    def _decoded(self, data: bytes) -> VisualTokens | None:
        """The tokens; None where the bytes are damaged, foreign or of another version."""
        try:
            tokens = decode(data, max_bytes=self._config.max_value_bytes)
        except WireError:
            return None
        return tokens if isinstance(tokens, VisualTokens) and _has_the_right_form(tokens) else None

    def _count(self, memory_hits: int = 0, store_hits: int = 0, misses: int = 0, damaged: int = 0) -> None:
        with self._counting:
            before = self._counts
            self._counts = LatentCounts(
                memory_hits=before.memory_hits + memory_hits,
                store_hits=before.store_hits + store_hits,
                misses=before.misses + misses,
                damaged=before.damaged + damaged,
            )


def _name(key: str) -> str:
    # Processes of two versions may share a store while one takes the place of the other.
    return f"latents:{VERSION}:{key}"


def _has_the_right_form(tokens: VisualTokens) -> bool:
    """Whether every tensor is [N, D] of floating-point numbers; the encoder relies on it."""
    tensors = (tokens.features, *tokens.deepstack)
    return all(
        tensor.ndim == 2 and tensor.is_floating_point() and len(tensor) == len(tokens.features) for tensor in tensors
    )
