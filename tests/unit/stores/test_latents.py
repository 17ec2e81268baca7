"""Visual tokens come back bit for bit, from memory or from a Redis; whatever else is there is a miss."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from flashsd_ray.config import StoresConfig
from flashsd_ray.stores.latents import LatentCache, LatentCounts
from flashsd_ray.stores.memory import MemoryStore
from flashsd_ray.stores.redis_store import RedisStore
from flashsd_ray.types import FinishReason, VisualTokens
from flashsd_ray.wire.codec import VERSION, encode
from tests.redis_server import RedisServer, needs_redis

KEY = "target:picture"
NAME = f"flashsd:latents:{VERSION}:{KEY}"


def made(rows: int = 3, dtype: torch.dtype = torch.bfloat16, num_deepstack: int = 0) -> VisualTokens:
    parts = [torch.randn(rows, 4).to(dtype) for _ in range(num_deepstack + 1)]
    return VisualTokens(features=parts[0], deepstack=tuple(parts[1:]), grid=(1, rows, 1))


def same(one: VisualTokens | None, other: VisualTokens) -> bool:
    if one is None or len(one.deepstack) != len(other.deepstack) or one.grid != other.grid:
        return False
    pairs = zip((one.features, *one.deepstack), (other.features, *other.deepstack), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    with server.client() as client:
        client.flushdb()
        yield client


@pytest.fixture
def config(server: RedisServer) -> StoresConfig:
    return StoresConfig(url=server.url, timeout_s=20.0)


def test_without_a_shared_store_memory_is_all_there_is() -> None:
    config = StoresConfig()
    store = MemoryStore(config)
    for cache in (LatentCache(config), LatentCache(config, store)):
        tokens = made()
        assert cache.get(KEY) is None
        cache.put(KEY, tokens)
        assert cache.get(KEY) is tokens
        assert cache.counts == LatentCounts(memory_hits=1, misses=1)
    assert store.get(f"latents:{VERSION}:{KEY}") is None


def test_memory_is_bounded() -> None:
    tokens = [made(rows=10) for _ in range(10)]
    cache = LatentCache(StoresConfig(latent_bytes=3 * tokens[0].num_bytes))
    for number, one in enumerate(tokens):
        cache.put(str(number), one)
    assert cache.num_bytes == 3 * tokens[0].num_bytes
    assert [number for number in range(10) if cache.get(str(number)) is not None] == [7, 8, 9]


@needs_redis
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_deepstack", [0, 3])
def test_another_process_finds_the_same_bits(
    config: StoresConfig, client: Redis, dtype: torch.dtype, num_deepstack: int
) -> None:
    first, second = (LatentCache(config, RedisStore(config)) for _ in range(2))
    with torch.inference_mode():
        tokens = made(5, dtype, num_deepstack)
    first.put(KEY, tokens)
    assert same(second.get(KEY), tokens)
    assert same(second.get(KEY), tokens)
    assert second.counts == LatentCounts(memory_hits=1, store_hits=1)
    assert 0 < client.pttl(NAME) <= config.latent_ttl_s * 1000


@needs_redis
@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"foreign",
        pickle.dumps(made()),
        encode("a text"),
        encode(FinishReason.STOP),
        encode(made().features),
        encode(made())[:-1],
        encode(made()) + bytes(16),
        encode(VisualTokens(features=torch.zeros(3))),
        encode(VisualTokens(features=torch.zeros(3, 4, dtype=torch.int64))),
        encode(VisualTokens(features=torch.zeros(3, 4), deepstack=(torch.zeros(2, 4),))),
    ],
)
def test_a_damaged_or_foreign_value_is_a_miss_and_is_replaced(
    config: StoresConfig, client: Redis, foreign: bytes
) -> None:
    client.set(NAME, foreign)
    cache = LatentCache(config, RedisStore(config))
    assert cache.get(KEY) is None
    assert cache.counts == LatentCounts(misses=1, damaged=1)
    tokens = made()
    cache.put(KEY, tokens)
    assert same(LatentCache(config, RedisStore(config)).get(KEY), tokens)


@needs_redis
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_flipped_bits_are_a_miss(server: RedisServer, place: int, bits: int) -> None:
    config = StoresConfig(url=server.url, timeout_s=20.0)
    data = bytearray(encode(made()))
    data[place % len(data)] ^= bits
    with server.client() as client:
        client.set(NAME, bytes(data))
    store = RedisStore(config)
    assert LatentCache(config, store).get(KEY) is None
    store.close()


@needs_redis
def test_too_large_tokens_stay_in_this_process(config: StoresConfig, client: Redis) -> None:
    tokens = made(rows=100)
    for limit in (tokens.num_bytes - 1, tokens.num_bytes + 10):  # the message is larger than the tensors alone
        small = replace(config, max_value_bytes=limit)
        store = RedisStore(small)
        cache = LatentCache(small, store)
        cache.put(KEY, tokens)
        assert cache.get(KEY) is tokens
        assert client.keys() == []
        assert (store.health(), store.counts.errors) == ("", 0)


@needs_redis
def test_a_lost_redis_leaves_the_first_level() -> None:
    with RedisServer() as server:
        config = StoresConfig(url=server.url, timeout_s=20.0)
        store = RedisStore(config)
        cache = LatentCache(config, store)
        first, second = made(), made()
        cache.put("first", first)
        server.kill()
        assert cache.get("unknown") is None
        cache.put("second", second)
        assert cache.get("first") is first
        assert cache.get("second") is second
        assert store.health() != ""
        store.close()
