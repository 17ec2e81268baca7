"""What a network gets for one round of drafting, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flashsd_ray.models.drafters.choice import DraftChoice
from flashsd_ray.models.drafters.window import Span
from flashsd_ray.models.kv_cache import CachedSequence


@dataclass(frozen=True, slots=True, eq=False)
class DraftRound:
    """One forward's work: new context rows of every sequence, flat, and where each sequence stands."""

    context: Tensor  # [m, E]
    positions: Sequence[Sequence[int]]  # of each sequence's new rows
    sequences: Sequence[CachedSequence]  # not counting the new rows yet
    anchors: Sequence[int]  # last committed token of each
    starts: Sequence[int]  # number of committed tokens of each
    choice: DraftChoice
    length: int  # tokens to draft for each

    @property
    def counts(self) -> list[int]:
        """Context rows of each sequence, the new ones included."""
        return [s.length + len(new) for s, new in zip(self.sequences, self.positions, strict=True)]

    @property
    def newest(self) -> Tensor:  # [B] int64
        """The flat context row of each sequence that was committed last."""
        ends = torch.tensor([len(new) for new in self.positions], device=self.context.device).cumsum(0)
        return ends - 1

    @property
    def spans(self) -> list[Span]:
        """Where the new context rows go."""
        return [Span(s, s.length, new) for s, new in zip(self.sequences, self.positions, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Drafts:
    """What a network drafted."""

    token_ids: Tensor  # [B, K] int64
    confidence: Tensor | None = None  # [B, K], predicted probability that each draft stands, given those before
