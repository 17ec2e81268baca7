"""One pool of cache rows for all sequences: admission by free rows, shared prefixes, rollback without copying.

Rows are handed out in blocks. A sequence reserves all rows it can ever need when it is opened, so a running request
is never evicted. Rolling back rejected drafts only lowers a length: stale rows are overwritten by the next round.
Full blocks of a prompt are indexed by a digest of everything up to their end; a later sequence that begins alike
takes them instead of computing them. Blocks nobody uses stay indexed until their rows are needed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flashsd_ray.errors import InvalidRequestError, OverloadedError

BLOCK_ROWS = 16  # small enough to waste little per sequence, large enough to keep the index short


class BlockPool:
    """Which blocks are free, how many sequences use each, and which prompt prefix each one holds.

    Block 0 is never handed out: rows of padding write there.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = set(range(1, num_blocks))
        self._users: dict[int, int] = {}
        self._digest_of: dict[int, str] = {}
        self._block_of: dict[str, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # indexed, unused, oldest first

    @property
    def num_available(self) -> int:
        """Blocks that can be handed out now, idle prefixes included."""
        return len(self._free) + len(self._idle)

    def find_prefix(self, digests: Sequence[str]) -> list[int]:
        """The blocks of the longest indexed prefix."""
        found = []
        for digest in digests:
            if digest not in self._block_of:
                break
            found.append(self._block_of[digest])
        return found

    def take(self, num_new: int, shared: Sequence[int] = ()) -> list[int] | None:
        """``shared`` and ``num_new`` further blocks are in use once more; None, and no change, when too few are free."""
        if num_new > self.num_available - sum(block in self._idle for block in shared):
            return None
        for block in shared:
            self._users[block] = self._users.get(block, 0) + 1
            self._idle.pop(block, None)
        while len(self._free) < num_new:
            evicted, _ = self._idle.popitem(last=False)
            del self._block_of[self._digest_of.pop(evicted)]
            self._free.add(evicted)
        fresh = self._choose(num_new, after=shared[-1] if shared else None)
        self._free.difference_update(fresh)
        self._users.update(dict.fromkeys(fresh, 1))
        return [*shared, *fresh]

    def _choose(self, count: int, after: int | None) -> list[int]:
        # Neighbouring blocks let a lone sequence read its rows as a view instead of gathering them.
        if after is not None and all(after + 1 + i in self._free for i in range(count)):
            return list(range(after + 1, after + 1 + count))
        ordered = sorted(self._free)
        for first in range(len(ordered) - count + 1 if count else 0):
            if ordered[first + count - 1] - ordered[first] == count - 1:
                return ordered[first : first + count]
        return ordered[:count]

    def index(self, blocks: Sequence[int], digests: Sequence[str]) -> None:
        """Later sequences can find these blocks by the digests of the prefixes that they end."""
        for block, digest in zip(blocks, digests, strict=True):
            if digest not in self._block_of and block not in self._digest_of:
                self._block_of[digest] = block
                self._digest_of[block] = digest

    def release(self, blocks: Sequence[int]) -> None:
        """The blocks have one user less; those without any are free, or idle when indexed."""
        for block in blocks:
            self._users[block] -= 1
            if self._users[block] == 0:
                del self._users[block]
                if block in self._digest_of:
                    self._idle[block] = None
                else:
                    self._free.add(block)


@dataclass(eq=False, slots=True)
class CachedSequence:
    """The rows of one open sequence: ``length`` of them hold positions ``0 .. length - 1``."""

    blocks: list[int]
    rows: Tensor  # [capacity] int64, row of each position
    is_contiguous: bool
    length: int = 0
    first_row: int = 0

    @property
    def capacity(self) -> int:
        """Most positions the sequence can hold."""
        return len(self.rows)

    def row(self, position: int) -> int:
        """The cache row of a position."""
        return self.blocks[position // BLOCK_ROWS] * BLOCK_ROWS + position % BLOCK_ROWS

    def truncate(self, length: int) -> None:
        """Only the first ``length`` positions are held; nothing is copied."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached positions to {length}")
        self.length = length


class KVCache:
    """Keys, values and tap rows of all open sequences."""

    def __init__(
        self,
        *,
        num_layers: int,
        num_rows: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
        tap_width: int = 0,  # E; 0: no taps are kept
    ) -> None:
        num_blocks = -(-num_rows // BLOCK_ROWS) + 1
        shape = (num_layers, num_kv_heads, num_blocks * BLOCK_ROWS, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.taps = torch.zeros((shape[2], tap_width), dtype=dtype, device=device)
        self.pool = BlockPool(num_blocks)
        self._layer_keys = list(self.keys)
        self._layer_values = list(self.values)

    @property
    def free_rows(self) -> int:
        """Rows that a new sequence could reserve now."""
        return self.pool.num_available * BLOCK_ROWS

    @property
    def max_rows(self) -> int:
        """Rows that a sequence could reserve in an empty cache."""
        return (self.pool.num_blocks - 1) * BLOCK_ROWS

    def open(self, max_rows: int, prefix_digests: Sequence[str] = ()) -> CachedSequence:
        """A sequence with room for ``max_rows`` positions, holding the longest cached prefix already.

        Raises:
            InvalidRequestError: the cache could never hold it.
            OverloadedError: the rows are not free now.
        """
        if max_rows > self.max_rows:
            raise InvalidRequestError(
                f"the request needs {max_rows} cache rows, scheduling.cache_rows allows {self.max_rows}"
            )
        shared = self.pool.find_prefix(prefix_digests)
        blocks = self.pool.take(-(-max_rows // BLOCK_ROWS) - len(shared), shared)
        if blocks is None:
            raise OverloadedError(f"{max_rows} cache rows are needed, {self.free_rows} are free")
        numbers = torch.tensor(blocks, dtype=torch.int64)
        rows = (numbers[:, None] * BLOCK_ROWS + torch.arange(BLOCK_ROWS)).flatten()
        return CachedSequence(
            blocks=blocks,
            rows=rows.to(self.keys.device),
            is_contiguous=blocks == list(range(blocks[0], blocks[0] + len(blocks))),
            length=len(shared) * BLOCK_ROWS,
            first_row=blocks[0] * BLOCK_ROWS,
        )

    def close(self, sequence: CachedSequence) -> None:
        """The rows of the sequence are free for others."""
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.length = 0

    def write(
        self,
        layer: int,
        rows: Tensor,  # [m] int64
        keys: Tensor,  # [m, Hkv, Dh]
        values: Tensor,  # [m, Hkv, Dh]
    ) -> None:
        """The rows of one layer hold these keys and values."""
        self._layer_keys[layer].index_copy_(1, rows, keys.transpose(0, 1))
        self._layer_values[layer].index_copy_(1, rows, values.transpose(0, 1))

    def read(
        self,
        layer: int,
        rows: Tensor | slice,  # [B * L] int64, or a run of rows of one sequence
        batch: int,
    ) -> tuple[Tensor, Tensor]:  # [Hkv, B, L, Dh] each
        """Keys and values at the rows; a slice is a view, an index a copy."""
        layer_keys, layer_values = self._layer_keys[layer], self._layer_values[layer]
        if isinstance(rows, slice):
            return layer_keys[:, None, rows], layer_values[:, None, rows]
        kv_heads, _, width = layer_keys.shape
        shape = (kv_heads, batch, -1, width)
        return layer_keys.index_select(1, rows).view(shape), layer_values.index_select(1, rows).view(shape)

    def select(
        self,
        sequences: Sequence[CachedSequence],
        length: int,  # L, positions to read of each; those beyond a sequence's own read the row of padding
    ) -> Tensor | slice:
        """The rows to ``read`` for positions ``0 .. length - 1`` of every sequence."""
        if len(sequences) == 1 and sequences[0].is_contiguous and length <= sequences[0].capacity:
            first = sequences[0].first_row
            return slice(first, first + length)
        parts = []
        for sequence in sequences:
            rows = sequence.rows[:length]
            parts.append(rows if len(rows) == length else torch.nn.functional.pad(rows, (0, length - len(rows))))
        return torch.cat(parts)
