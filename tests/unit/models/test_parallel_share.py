"""Shares of ranks: nothing is missing, nothing is held twice but what must be, and odd numbers are refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.errors import CheckpointError, ProtocolError
from flashsd_ray.models.parallel.orders import Forward, GroupShape, Head, Hello, Join, Measure, NewCache, decode, encode
from flashsd_ray.models.parallel.share import Share, even, share_of, working_sizes


def shares(heads: int, kv_heads: int, size: int, units: int = 100, vocabulary: int = 97) -> list[Share]:
    config = SimpleNamespace(
        num_attention_heads=heads, num_key_value_heads=kv_heads, intermediate_size=units, vocab_size=vocabulary
    )
    return [share_of(config, rank, size) for rank in range(size)]


@given(kv_heads=st.integers(1, 8), group=st.integers(1, 8), data=st.data())
def test_every_head_is_read_by_one_rank_that_has_its_keys(kv_heads: int, group: int, data: st.DataObject) -> None:
    heads = kv_heads * group
    size = data.draw(st.sampled_from(working_sizes(heads, kv_heads)))
    ranks = shares(heads, kv_heads, size)
    assert [head for one in ranks for head in one.heads] == list(range(heads))
    for one in ranks:
        assert one.heads
        assert sorted({head // group for head in one.heads}) == list(one.kv_heads)
        # Grouped attention folds query heads evenly over the key/value heads that a rank has.
        assert len(one.heads) % len(one.kv_heads) == 0
    assert [unit for one in ranks for unit in one.units] == list(range(100))
    assert [row for one in ranks for row in one.vocabulary] == list(range(97))
    assert {one.widest_vocabulary for one in ranks} == {-(-97 // size)}


def test_sizes_that_would_cut_heads_are_refused_by_name() -> None:
    assert working_sizes(heads=32, kv_heads=8) == [1, 2, 4, 8, 16, 24, 32]
    assert working_sizes(heads=5, kv_heads=1) == [1, 2, 3, 4, 5]
    with pytest.raises(
        CheckpointError, match=r"tensor_parallel is 3.*num_key_value_heads is 8.*1, 2, 4, 8, 16, 24, 32"
    ):
        shares(32, 8, 3)


@given(total=st.integers(0, 50), parts=st.integers(1, 9))
def test_even_parts_differ_by_one_at_most(total: int, parts: int) -> None:
    lengths = [len(even(range(total), parts, index)) for index in range(parts)]
    assert sum(lengths) == total
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    "order",
    [
        Hello(),
        Measure(),
        Head(num_rows=3),
        Join(host="127.0.0.1", port=9, timeout_s=1.5),
        Forward(
            cache=0,
            num_rows=7,
            groups=(
                GroupShape(batch=3, rows=2, length=40, first_row=None, is_masked=True),
                GroupShape(batch=1, rows=1, length=9, first_row=16, is_masked=False),
            ),
        ),
    ],
)
def test_orders_arrive_as_they_were_given(order: Hello | Measure | Head | Join | Forward) -> None:
    line = encode(order)
    assert b"\n" not in line
    assert decode(line) == order


def test_numbers_of_caches_in_use_arrive() -> None:
    arrived = decode(encode(NewCache(number=2, num_rows=64, in_use=(0, 1))))
    assert isinstance(arrived, NewCache)
    assert list(arrived.in_use) == [0, 1]


@pytest.mark.parametrize("line", [b"", b"{}", b'["Hello"]', b'["Nothing", {}]', b'["Head", {"rows": 1}]', b"\xff"])
def test_what_is_no_order_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)
