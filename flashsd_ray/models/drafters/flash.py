"""The paper's drafter, repaired: from one row, several tokens in one forward, none of which sees the others.

Of the published code it keeps the inputs (last hidden state and next token), the single attention layer and the
projection to k futures; grouped-query attention, residuals, norms and the key/value cache are made right.

Source: FLASH, arXiv 2505.12728, semi-autoregressive head.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from flashsd_ray.models.drafters.architecture import DrafterConfig, one_layer
from flashsd_ray.models.drafters.last_row import LastRowNetwork
from flashsd_ray.models.drafters.layers import Projection, RMSNorm
from flashsd_ray.models.drafters.lesson import Answers, Lesson
from flashsd_ray.models.drafters.registry import register
from flashsd_ray.models.drafters.round import DraftRound, Drafts
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.models.kv_cache import KVCache
from flashsd_ray.speculation.sampling import highest_ids


@register("flash")
class FlashNetwork(LastRowNetwork):
    """Rows ``fc([E(next token); last hidden state])``, one attention layer, k futures of the last row."""

    fuses_taps: ClassVar[bool] = False

    @classmethod
    def default_config(cls, view: TargetView, compressor: str) -> DrafterConfig:
        """The last hidden state as the only tap; five tokens, as in the paper."""
        return one_layer("flash", view, compressor, tap_layers=(view.num_layers,), draft_length=5)

    def __init__(self, config: DrafterConfig, view: TargetView) -> None:
        super().__init__(config, view)
        self.future_norm = RMSNorm(view.rms_norm_eps, config.width)
        self.future_up = Projection(config.width, config.intermediate_size)
        self.future_down = Projection(config.intermediate_size, config.draft_length * config.width)

    def enter(self, fused: Tensor, following: Tensor) -> Tensor:  # [m, E], [m] int64 -> [m, E]
        """Hidden states joined with the embeddings of the tokens behind them."""
        rows: Tensor = self.join(torch.cat((self.embed(following).to(fused.dtype), fused), dim=-1))
        return rows

    def futures(self, hidden: Tensor) -> Tensor:  # [m, E] -> [m, K, E]
        """The hidden states that the target is expected to have at the next positions."""
        steps: Tensor = self.future_down(F.silu(self.future_up(self.future_norm(hidden))))
        return hidden[:, None] + steps.view(len(hidden), self.config.draft_length, -1)

    def draft(self, work: DraftRound, cache: KVCache) -> Drafts:
        """The new context rows are in the cache, and every sequence has its drafts."""
        _, logits = self.score(self.futures(self.attend_last(work, cache))[:, : work.length])
        if work.choice.is_highest:
            token_ids = highest_ids(work.choice.with_noise(logits))
        else:
            chosen = [work.choice.choose(logits[:, slot], slot) for slot in range(logits.shape[1])]
            token_ids = torch.stack(chosen, dim=1)
        confidence = logits.float().softmax(dim=-1).gather(-1, token_ids[..., None])[..., 0]
        return Drafts(token_ids, confidence)

    def forward(self, lesson: Lesson) -> Answers:
        """What the row before every anchor says about the tokens behind the anchor."""
        hidden, _, _ = self.attend_before(lesson)
        futures = self.futures(hidden).view(*lesson.anchors.shape, self.config.draft_length, -1)
        features, logits = self.score(futures)
        return Answers(logits, features=features)
