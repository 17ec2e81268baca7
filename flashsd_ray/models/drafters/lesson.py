"""What a network learns from: many anchors in sequences that the target has read completely.

A row of context is visible to an anchor when its position is smaller, exactly as when decoding. Padding stands at a
position that no anchor reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flashsd_ray.models.attention import MASKED


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A batch of sequences and the anchors in them."""

    context: Tensor  # [N, m, E], context rows
    positions: Tensor  # [N, m] int64, of the context rows; padding: num_tokens or more
    token_ids: Tensor  # [N, n] int64
    anchors: Tensor  # [N, A] int64, positions

    @property
    def num_tokens(self) -> int:
        """Positions of the longest sequence, padding included."""
        return self.token_ids.shape[1]

    def tokens_from(self, offset: int, count: int) -> Tensor:  # [N, A, count] int64
        """The true tokens at ``anchor + offset ..``; behind the end the last one is repeated."""
        steps = torch.arange(offset, offset + count, device=self.anchors.device)
        places = (self.anchors[..., None] + steps).clamp(max=self.num_tokens - 1)
        return self.token_ids.gather(1, places.flatten(1)).view(places.shape)

    def context_bias(self) -> Tensor:  # [N, A, m] float32
        """Hides context rows that do not lie before the anchor."""
        hidden = self.positions[:, None] >= self.anchors[..., None]
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, MASKED)

    def rows_before(self) -> Tensor:  # [N, A, E]
        """The context row right before each anchor."""
        index = (self.positions[:, None] < self.anchors[..., None]).sum(dim=-1) - 1  # positions ascend
        return self.context.gather(1, index[..., None].expand(-1, -1, self.context.shape[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a network says behind every anchor when it is told the true tokens so far."""

    logits: Tensor  # [N, A, K, V], slot i is about the token at anchor + 1 + i
    stand_logits: Tensor | None = None  # [N, A, K, 2], log-odds that the slot's draft stands: greedy, sampled
    features: Tensor | None = None  # [N, A, K, E], rows the head reads; where the loss compares them with the target's
