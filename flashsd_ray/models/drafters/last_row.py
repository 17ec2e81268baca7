"""What drafters in the manner of EAGLE have in common: they go on from the last context row.

A context row joins what the target thought at a position with the token that came next, so the row before the anchor
knows everything that is committed.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.layers import DraftAttention, Projection
from flashsd_ray.models.drafters.lesson import Lesson
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.models.drafters.round import DraftRound
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.models.drafters.window import Window, open_window
from flashsd_ray.models.kv_cache import KVCache


class LastRowNetwork(DrafterNetwork):
    """One attention layer over context rows that know the token behind them; with no layer a row sees itself alone."""

    reads_following: ClassVar[bool] = True

    def __init__(self, config: DrafterConfig, view: TargetView) -> None:
        super().__init__(config, view)
        self.attention = DraftAttention(config, view.rms_norm_eps)
        self.join = Projection(2 * config.width, config.width)

    def attend(
        self,
        rows: Tensor,  # [m, E], all new rows
        reading: Tensor | slice,  # which of them look around: [B] int64
        window: Window,
        cache: KVCache,
        batch: int,
    ) -> Tensor:  # [B, E]
        """All rows are cached; the reading ones have found what they were looking for."""
        cos, signed_sin = self.rotary.rows(window.positions, window.longest, rows.dtype)
        queries, keys, values = self.attention.project(rows, cos, signed_sin)
        cache.write(0, window.cache_rows, keys, values)
        keys, values = cache.read(0, window.keys, batch)
        return self.attention.add(rows[reading], self.attention.read(queries[reading], keys, values, window.bias))

    def attend_last(self, work: DraftRound, cache: KVCache) -> Tensor:  # [B, E]
        """The new context rows are in the cache; the last one of each sequence has looked at all of them."""
        newest = work.newest
        if not self.config.num_layers:
            return work.context[newest]
        window = open_window(cache, work.spans, work.sequences, work.counts)
        return self.attend(work.context, newest, window, cache, len(work.sequences))

    def attend_before(self, lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
        """The row before each anchor after attention [N * A, E]; keys and values of the context [N, m, Hkv, Dh]."""
        batch, length, _ = lesson.context.shape
        if not self.config.num_layers:
            nothing = lesson.context.new_empty(batch, 0, self.config.num_kv_heads, self.config.head_dim)
            return lesson.rows_before().flatten(0, 1), nothing, nothing
        context = lesson.context.flatten(0, 1)
        _, keys, values = self.attention.project(context, *self.rotary_of(lesson.positions, lesson))
        keys, values = (part.reshape(batch, length, *part.shape[1:]) for part in (keys, values))
        rows = lesson.rows_before().flatten(0, 1)
        queries, _, _ = self.attention.project(rows, *self.rotary_of(lesson.anchors - 1, lesson))
        bias = lesson.context_bias()
        found = self.attention.read(queries, keys.permute(2, 0, 1, 3), values.permute(2, 0, 1, 3), bias)
        return self.attention.add(rows, found), keys, values
