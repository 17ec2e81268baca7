"""Which part of every matrix a rank holds.

Heads are never cut. Where there are fewer key/value heads than ranks, several ranks hold the same one and share the
query heads that read it, as evenly as they go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flashsd_ray.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The heads, feed-forward units and vocabulary rows of one rank."""

    rank: int
    size: int  # R
    heads: range
    kv_heads: range
    units: range  # of the feed-forward layer
    vocabulary: range  # of a head that is split
    widest_vocabulary: int  # rows that every rank's part of the head has, the last ones filled up

    @property
    def leads(self) -> bool:
        """Whether this is the rank that speaks with the scheduler."""
        return self.rank == 0


def share_of(config: Any, rank: int, size: int) -> Share:
    """The share of a rank, for a decoder of the transformers library's configuration.

    Raises:
        CheckpointError: the decoder cannot be split over so many ranks; the message names numbers that work.
    """
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    working = working_sizes(heads, kv_heads)
    if size not in working:
        raise CheckpointError(
            f"model.tensor_parallel is {size}, but num_key_value_heads is {kv_heads} and num_attention_heads {heads}; "
            f"sizes that work: {', '.join(map(str, working))}"
        )
    # Parts of one width, side by side, are the whole vocabulary and a tail to cut off.
    width = -(-config.vocab_size // size)
    return Share(
        rank=rank,
        size=size,
        heads=_query_heads(heads, kv_heads, rank, size),
        kv_heads=_kv_heads(kv_heads, rank, size),
        units=even(range(config.intermediate_size), size, rank),
        vocabulary=range(config.vocab_size)[rank * width : (rank + 1) * width],
        widest_vocabulary=width,
    )


def working_sizes(heads: int, kv_heads: int) -> list[int]:
    """Numbers of ranks that divide the key/value heads, or are multiples of them with a query head for each rank."""
    return [size for size in range(1, heads + 1) if kv_heads % size == 0 or size % kv_heads == 0]


def even(whole: range, parts: int, index: int) -> range:
    """One of so many consecutive parts whose lengths differ by one at most, the longer ones first."""
    length, extra = divmod(len(whole), parts)
    start = index * length + min(index, extra)
    return whole[start : start + length + (index < extra)]


def _kv_heads(kv_heads: int, rank: int, size: int) -> range:
    if size <= kv_heads:
        return even(range(kv_heads), size, rank)
    shared = rank * kv_heads // size
    return range(shared, shared + 1)


def _query_heads(heads: int, kv_heads: int, rank: int, size: int) -> range:
    group = heads // kv_heads
    mine = _kv_heads(kv_heads, rank, size)
    readers = range(mine.start * group, mine.stop * group)
    sharing = max(1, size // kv_heads)  # ranks with these key/value heads
    return even(readers, sharing, rank % sharing)
