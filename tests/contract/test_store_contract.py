"""One suite over every store: bytes by key, for a while, in memory and in a real Redis."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import StoresConfig
from flashsd_ray.stores.memory import MemoryStore
from flashsd_ray.stores.redis_store import RedisStore
from flashsd_ray.stores.store import Store, StoreCounts, open_store
from tests.redis_server import RedisServer, needs_redis

MAX_VALUE_BYTES = 64
SHORT_S, LONG_S = 60.0, 3600.0
CONFIG = StoresConfig(max_value_bytes=MAX_VALUE_BYTES, timeout_s=20.0)

# Every example has keys of its own, so that all can share one store.
examples = itertools.count()


@dataclass(frozen=True)
class Bench:
    """A store, and how its time passes."""

    store: Store
    pass_time: Callable[[float], object]  # seconds
    config: StoresConfig

    def another(self) -> Store:
        """One more store like it, for tests that close it."""
        return open_store(self.config)


def memory_bench() -> Iterator[Bench]:
    now_s = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    yield Bench(MemoryStore(CONFIG, clock=lambda: now_s), pass_time, CONFIG)


def redis_bench() -> Iterator[Bench]:
    with RedisServer() as server, server.client() as client:

        def pass_time(seconds: float) -> None:
            for name in client.keys("flashsd:*"):
                left_ms = client.pttl(name) - round(seconds * 1000)
                client.pexpire(name, left_ms) if left_ms > 0 else client.delete(name)

        config = replace(CONFIG, url=server.url)
        store = RedisStore(config)
        yield Bench(store, pass_time, config)
        assert store.health() == ""
        store.close()


@pytest.fixture(scope="module", params=[memory_bench, pytest.param(redis_bench, marks=needs_redis)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    yield from request.param()


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.binary(max_size=MAX_VALUE_BYTES)
TTLS_S = st.sampled_from([SHORT_S, LONG_S])
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, VALUES, TTLS_S),
    st.tuples(st.just("add"), KEYS, VALUES, TTLS_S),
    st.tuples(st.just("put too much"), KEYS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("get_many"), st.lists(KEYS)),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("pass_time"), st.sampled_from([SHORT_S, LONG_S])),
)


class Model:
    """What a store does, with a dictionary."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.entries: dict[str, tuple[bytes, float]] = {}

    def get(self, key: str) -> bytes | None:
        value, end_s = self.entries.get(key, (None, 0.0))
        return value if end_s > self.now_s else None

    def put(self, key: str, value: bytes, ttl_s: float) -> bool:
        self.entries[key] = (value, self.now_s + ttl_s)
        return True

    def add(self, key: str, value: bytes, ttl_s: float) -> bool:
        return self.get(key) is None and self.put(key, value, ttl_s)


@given(st.lists(STEPS, max_size=25))
def test_any_sequence_of_calls_does_what_a_dictionary_does(bench: Bench, steps: list[tuple]) -> None:
    model, store, here = Model(), bench.store, f"{next(examples)}/"
    for step, *arguments in steps:
        match step, arguments:
            case "put", (key, value, ttl_s):
                assert store.put(here + key, value, ttl_s) is model.put(key, value, ttl_s)
            case "add", (key, value, ttl_s):
                assert store.add(here + key, value, ttl_s) is model.add(key, value, ttl_s)
            case "put too much", (key,):
                assert store.put(here + key, bytes(MAX_VALUE_BYTES + 1), LONG_S) is False
            case "get", (key,):
                assert store.get(here + key) == model.get(key)
            case "get_many", (keys,):
                expected = {here + key: value for key in keys if (value := model.get(key)) is not None}
                assert store.get_many([here + key for key in keys]) == expected
            case "delete", (key,):
                store.delete(here + key)
                model.entries.pop(key, None)
            case "pass_time", (seconds,):
                bench.pass_time(seconds)
                model.now_s += seconds
    assert {key: store.get(here + key) for key in "abc"} == {key: model.get(key) for key in "abc"}


@given(st.text(), VALUES)
def test_any_text_is_a_key(bench: Bench, key: str, value: bytes) -> None:
    assert bench.store.put(key, value, SHORT_S)
    assert bench.store.get(key) == value


@pytest.mark.parametrize("key", ["", "\ud800", "\x00", "a b\r\nDEL c", "*", "k" * 10_000])
def test_odd_keys_are_keys_like_others(bench: Bench, key: str) -> None:
    bench.store.delete(key)
    assert bench.store.add(key, b"odd", SHORT_S)
    assert bench.store.get_many([key, key + "?"]) == {key: b"odd"}
    bench.store.delete(key)
    assert bench.store.get(key) is None


def test_of_many_who_add_at_once_one_succeeds(bench: Bench) -> None:
    key = f"{next(examples)}/raced for"
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: bench.store.add(key, b"%d" % number, SHORT_S), range(64)))
    assert outcomes.count(True) == 1
    assert bench.store.get(key) == b"%d" % outcomes.index(True)


def test_a_value_of_the_largest_size_is_kept_and_one_byte_more_is_not(bench: Bench) -> None:
    key = f"{next(examples)}/large"
    assert bench.store.add(key, bytes(MAX_VALUE_BYTES + 1), SHORT_S) is False
    assert bench.store.get(key) is None
    assert bench.store.put(key, bytes(MAX_VALUE_BYTES), SHORT_S) is True
    assert bench.store.get(key) == bytes(MAX_VALUE_BYTES)


@pytest.mark.parametrize("ttl_s", [1e-9, 1e18, float("inf")])
def test_every_positive_time_is_a_time(bench: Bench, ttl_s: float) -> None:
    key = f"{next(examples)}/for a while"
    assert bench.store.put(key, b"value", ttl_s)
    assert (bench.store.get(key) == b"value") or ttl_s < 1


def test_hits_and_misses_are_counted_by_key(bench: Bench) -> None:
    before, here = bench.store.counts, f"{next(examples)}/"
    bench.store.put(here + "a", b"1", SHORT_S)
    bench.store.get(here + "a")
    bench.store.get(here + "b")
    bench.store.get_many([here + "a", here + "a", here + "b", here + "c"])
    bench.store.get_many([])
    after = bench.store.counts
    counted = StoreCounts(hits=after.hits - before.hits, misses=after.misses - before.misses, errors=after.errors)
    assert counted == StoreCounts(hits=2, misses=3)


def test_what_is_kept_is_shared_where_the_store_says_so(bench: Bench) -> None:
    key = f"{next(examples)}/shared"
    bench.store.put(key, b"value", LONG_S)
    other = bench.another()
    assert (other.get(key) == b"value") is bench.store.is_shared
    other.close()


def test_a_store_that_is_closed_finds_nothing_and_says_why(bench: Bench) -> None:
    store = bench.another()
    assert store.health() == ""
    assert store.put("closing", b"value", SHORT_S)
    store.close()
    assert store.get("closing") is None
    assert store.get_many(["closing"]) == {}
    assert store.put("closing", b"value", SHORT_S) is False
    assert store.add("another", b"value", SHORT_S) is False
    store.delete("closing")
    store.close()
    assert store.health().endswith("is closed")
