"""Where the rows of one draft forward stand in the drafter's cache, and what they see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flashsd_ray.models.attention import MASKED
from flashsd_ray.models.kv_cache import CachedSequence, KVCache


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """Consecutive cache rows of one sequence, from index ``first``, and the positions they stand for."""

    sequence: CachedSequence
    first: int
    positions: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One forward's places: where its rows are written, and which rows each sequence reads afterwards."""

    cache_rows: Tensor  # [m] int64
    positions: Tensor  # [m] int64
    longest: int  # largest position
    keys: Tensor | slice  # what KVCache.read takes
    bias: Tensor | None  # [B, 1 or R, L] float32, hides padding and what comes later


def open_window(
    cache: KVCache,
    spans: Sequence[Span],  # in the order of the flat rows
    sequences: Sequence[CachedSequence],
    visible: Sequence[int],  # rows of each sequence that are seen, those of its spans included
    causal_rows: int = 1,  # R, how many of these see no further than themselves
) -> Window:
    """The window of rows that all see the first ``visible`` rows of their sequence, but for the last ``causal_rows``."""
    rows: list[int] = []
    positions: list[int] = []
    for span in spans:
        rows += map(span.sequence.row, range(span.first, span.first + len(span.positions)))
        positions += span.positions
    device = cache.keys.device
    cache_rows, turned = torch.tensor((rows, positions), dtype=torch.int64, device=device)
    length = max(visible)
    bias = None
    if min(visible) < length or causal_rows > 1:
        ends = torch.tensor(visible, device=device)[:, None] + torch.arange(1 - causal_rows, 1, device=device)
        hidden = torch.arange(length, device=device) >= ends[:, :, None]
        bias = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, MASKED)
    return Window(
        cache_rows=cache_rows,
        positions=turned,
        longest=max(positions, default=0),
        keys=cache.select(sequences, length),
        bias=bias,
    )
