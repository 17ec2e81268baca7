"""The pool never hands a row to two requests, never loses one, and finds what was indexed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from flashsd_ray.errors import InvalidRequestError, OverloadedError
from flashsd_ray.models.kv_cache import BLOCK_ROWS, BlockPool, KVCache


class BlockPoolMachine(RuleBasedStateMachine):
    """Takes, indexes and releases blocks in any order, beside a model that only counts."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(24)
        self.users: dict[int, int] = {}

    @rule(target=leases, num_new=st.integers(0, 12), prefix=st.lists(st.integers(0, 2), max_size=4))
    def take(self, num_new: int, prefix: list[int]) -> tuple[list[int], list[str]]:
        digests = ["".join(map(str, prefix[: end + 1])) for end in range(len(prefix))]
        shared = self.pool.find_prefix(digests)
        available = self.pool.num_available
        blocks = self.pool.take(num_new, shared)
        if blocks is None:
            assert self.pool.num_available == available
            return [], []
        fresh = blocks[len(shared) :]
        assert blocks[: len(shared)] == shared
        assert len(set(blocks)) == len(blocks)
        assert 0 not in blocks
        assert not any(block in self.users for block in fresh)
        for block in blocks:
            self.users[block] = self.users.get(block, 0) + 1
        return blocks, digests[: len(blocks)]

    @rule(lease=leases)
    def index(self, lease: tuple[list[int], list[str]]) -> None:
        blocks, digests = lease
        if all(block in self.users for block in blocks):
            self.pool.index(blocks[: len(digests)], digests)

    @rule(lease=consumes(leases))
    def release(self, lease: tuple[list[int], list[str]]) -> None:
        blocks, _ = lease
        self.pool.release(blocks)
        for block in blocks:
            self.users[block] -= 1
            if not self.users[block]:
                del self.users[block]

    @invariant()
    def every_block_is_used_or_available(self) -> None:
        assert self.pool.num_available + len(self.users) == self.pool.num_blocks - 1


TestBlockPool = BlockPoolMachine.TestCase
TestBlockPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def small_cache(num_rows: int = 8 * BLOCK_ROWS) -> KVCache:
    return KVCache(num_layers=1, num_rows=num_rows, num_kv_heads=2, head_dim=4, dtype=torch.float32, device="cpu")


def test_a_request_that_can_never_fit_is_refused_and_one_that_cannot_fit_now_may_come_again() -> None:
    cache = small_cache()
    first = cache.open(5 * BLOCK_ROWS)
    with pytest.raises(InvalidRequestError, match=r"scheduling\.cache_rows"):
        cache.open(9 * BLOCK_ROWS)
    with pytest.raises(OverloadedError, match="are free"):
        cache.open(4 * BLOCK_ROWS)
    cache.close(first)
    assert cache.open(8 * BLOCK_ROWS).capacity == 8 * BLOCK_ROWS


def test_neighbouring_blocks_are_read_as_a_view_and_scattered_ones_as_a_copy() -> None:
    cache = small_cache()
    together = cache.open(3 * BLOCK_ROWS)
    assert isinstance(cache.select([together], 20), slice)
    # Beyond its own rows nobody reads what others wrote there, hidden or not.
    padded = cache.select([together], together.capacity + 2)
    assert isinstance(padded, torch.Tensor)
    assert padded.tolist() == [*together.rows.tolist(), 0, 0]
    holes = [cache.open(BLOCK_ROWS) for _ in range(5)]
    for hole in (holes[0], holes[2], holes[4]):
        cache.close(hole)
    scattered = cache.open(3 * BLOCK_ROWS)
    assert not scattered.is_contiguous
    values = torch.arange(40.0).reshape(40, 1, 1).expand(40, 2, 4)
    cache.write(0, scattered.rows[:40], values, values)
    keys, _ = cache.read(0, cache.select([scattered], 40), 1)
    assert torch.equal(keys[0, 0, :, 0], torch.arange(40.0))


def test_rolling_back_lowers_a_length_and_moves_nothing() -> None:
    cache = small_cache()
    sequence = cache.open(2 * BLOCK_ROWS)
    sequence.length = 20
    before = cache.keys.clone()
    sequence.truncate(7)
    assert sequence.length == 7
    assert torch.equal(cache.keys, before)
    with pytest.raises(ValueError, match="cannot truncate"):
        sequence.truncate(8)
