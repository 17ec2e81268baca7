"""The target's hidden states that a drafter reads: kept beside keys and values, fused when it is worth it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Rounds that are fused at once where nobody reads them sooner. Fusing 32 rows takes 190 us on a CPU, because the weights
# have left its cache since the round before; 512 rows take 750 (docs/log.md).
_ROUNDS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Which hidden states a drafter wants of every row, and how they are fused where they are produced."""

    layers: tuple[int, ...]  # numbered as transformers' hidden_states
    width: int  # E
    fuse: Callable[[Tensor], Tensor]  # [m, M * D] -> [m, E]


class TapCache:
    """A fused row for every row of a KV cache."""

    def __init__(self, taps: Taps, rows: Tensor) -> None:
        self.layers = taps.layers
        self._fuse = taps.fuse
        self._rows = rows  # [cache rows, E]
        self._waiting: list[tuple[Tensor, Tensor]] = []  # [m, M * D] and the cache rows [m] they belong to

    def keep(
        self,
        taps: Tensor,  # [m, M * D]
        cache_rows: Tensor,  # [m] int64
        *,
        is_plain: bool,  # each row continues a sequence whose rows so far all count
    ) -> None:
        """What a forward left behind is there to be read."""
        if not is_plain:
            # These rows may have belonged to a rejected draft or a closed sequence, whose taps must not come later.
            self._fuse_waiting()
        self._waiting.append((taps, cache_rows))
        if not is_plain or len(self._waiting) == _ROUNDS_AT_ONCE:
            self._fuse_waiting()

    def read(self, spans: Sequence[Tensor]) -> tuple[Tensor, ...]:  # [m] int64 each -> [m, E] each
        """The fused taps of cache rows."""
        self._fuse_waiting()
        found = self._rows.index_select(0, spans[0] if len(spans) == 1 else torch.cat(list(spans)))
        return torch.split(found, [len(span) for span in spans])

    def _fuse_waiting(self) -> None:
        if not self._waiting:
            return
        taps, cache_rows = (
            parts[0] if len(parts) == 1 else torch.cat(parts) for parts in zip(*self._waiting, strict=True)
        )
        self._waiting.clear()
        self._rows.index_copy_(0, cache_rows, self._fuse(taps))
