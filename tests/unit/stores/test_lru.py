"""Laws of the bounded memory: never over its size, what was used last survives, time ends values."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import StoresConfig
from flashsd_ray.stores.lru import RecentValues
from flashsd_ray.stores.memory import MemoryStore

KEYS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "add", "get", "delete"]), KEYS, st.sampled_from([0, 5, 9, 20])), max_size=50
)
MAX_BYTES = 20


@given(STEPS)
def test_it_forgets_what_was_unused_for_longest_and_nothing_else(steps: list[tuple[str, str, int]]) -> None:
    values: RecentValues[int] = RecentValues(MAX_BYTES)
    model: OrderedDict[str, int] = OrderedDict()  # sizes, which are the values too
    for step, key, size in steps:
        if step == "get":
            assert values.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        elif step == "delete":
            values.delete(key)
            model.pop(key, None)
        elif step == "put" or key not in model:
            assert values.put(key, size, size, replaces=step == "put")
            model.pop(key, None)
            model[key] = size
            while sum(model.values()) > MAX_BYTES:
                model.popitem(last=False)
        else:
            assert not values.put(key, size, size, replaces=False)
        assert values.num_bytes == sum(model.values()) <= MAX_BYTES
        assert len(values) == len(model)


def test_what_was_asked_for_last_is_kept() -> None:
    values: RecentValues[str] = RecentValues(2)
    values.put("a", "old", 1)
    values.put("b", "newer", 1)
    assert values.get("a") == "old"
    values.put("c", "newest", 1)
    assert [key for key in "abc" if values.get(key) is not None] == ["a", "c"]


def test_a_value_larger_than_everything_drives_nothing_out() -> None:
    values: RecentValues[str] = RecentValues(10)
    values.put("a", "kept", 5)
    assert not values.put("b", "too large", 11)
    assert values.get("a") == "kept"
    assert values.get("b") is None
    assert not values.put("a", "too large", 11)
    assert values.get("a") is None  # the old value would be wrong


def test_values_end_at_their_time() -> None:
    now_s = 0.0
    values: RecentValues[str] = RecentValues(10, clock=lambda: now_s)
    values.put("a", "short", 5, ttl_s=1.0)
    values.put("b", "endless", 5)
    now_s = 0.99
    assert values.get("a") == "short"
    assert not values.put("a", "other", 5, replaces=False)
    now_s = 1.0
    assert values.get("a") is None
    assert values.num_bytes == 5
    assert values.put("a", "other", 5, replaces=False)
    now_s = 1e12
    assert values.get("b") == "endless"


def test_many_threads_leave_the_sum_right() -> None:
    values: RecentValues[int] = RecentValues(50)

    def work(number: int) -> None:
        key = f"{number % 17}"
        values.put(key, number, number % 7)
        values.get(f"{number % 5}")
        if number % 3 == 0:
            values.delete(key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(4000)))
    for key in range(17):
        values.delete(str(key))
    assert (values.num_bytes, len(values)) == (0, 0)


def test_many_small_values_in_a_store_stay_within_its_memory() -> None:
    store = MemoryStore(StoresConfig(memory_bytes=10_000))
    for number in range(1000):
        assert store.put(f"{number}", b"", 60.0)
    found = [number for number in range(1000) if store.get(f"{number}") is not None]
    assert 20 <= len(found) <= 50
    assert found == list(range(1000 - len(found), 1000))
