"""A drafter in the manner of EAGLE-3: one causal layer that is fed its own hidden state, token after token.

Source: EAGLE-3, arXiv 2503.01840.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flashsd_ray.models.attention import MASKED
from flashsd_ray.models.drafters.architecture import DrafterConfig, one_layer, spread_taps
from flashsd_ray.models.drafters.last_row import LastRowNetwork
from flashsd_ray.models.drafters.layers import FeedForward, RMSNorm
from flashsd_ray.models.drafters.lesson import Answers, Lesson
from flashsd_ray.models.drafters.registry import register
from flashsd_ray.models.drafters.round import DraftRound, Drafts
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.models.drafters.window import Span, open_window
from flashsd_ray.models.kv_cache import KVCache


@register("ar")
class AutoregressiveNetwork(LastRowNetwork):
    """Rows ``join([norm(E(next token)); norm(fused taps)])``; while drafting its own output stands for the taps."""

    @classmethod
    def default_config(cls, view: TargetView, compressor: str) -> DrafterConfig:
        """One layer of the target's width, three taps, five tokens, each of which costs a forward."""
        return one_layer("ar", view, compressor, tap_layers=spread_taps(view.num_layers, 3), draft_length=5)

    def __init__(self, config: DrafterConfig, view: TargetView) -> None:
        super().__init__(config, view)
        self.token_norm = RMSNorm(view.rms_norm_eps, config.width)
        self.feature_norm = RMSNorm(view.rms_norm_eps, config.width)
        self.feed_forward = FeedForward(config, view.rms_norm_eps)

    def enter(self, fused: Tensor, following: Tensor) -> Tensor:  # [m, E], [m] int64 -> [m, E]
        """What was thought at a position, joined with the token that came next."""
        tokens = self.token_norm(self.embed(following)).to(fused.dtype)
        rows: Tensor = self.join(torch.cat((tokens, self.feature_norm(fused)), dim=-1))
        return rows

    def draft(self, work: DraftRound, cache: KVCache) -> Drafts:
        """The new context rows are in the cache, and every sequence has its drafts."""
        hidden = self.feed_forward(self.attend_last(work, cache))
        batch, counts = len(work.sequences), work.counts
        chosen: list[Tensor] = []
        confidence: list[Tensor] = []
        for slot in range(work.length):
            if slot:
                spans = [
                    Span(sequence, count + slot - 1, (start - 2 + slot,))
                    for sequence, count, start in zip(work.sequences, counts, work.starts, strict=True)
                ]
                window = open_window(cache, spans, work.sequences, [count + slot for count in counts])
                rows = self.enter(hidden, chosen[-1])
                hidden = self.feed_forward(self.attend(rows, slice(None), window, cache, batch))
            _, logits = self.score(hidden)
            chosen.append(work.choice.choose(logits, slot))
            confidence.append(logits.float().softmax(dim=-1).gather(-1, chosen[-1][:, None]))
        return Drafts(torch.stack(chosen, dim=1), torch.cat(confidence, dim=1))

    def forward(self, lesson: Lesson) -> Answers:
        """What each step behind every anchor says when it is told the true tokens, but fed its own hidden states."""
        attended, keys, values = self.attend_before(lesson)
        hidden = self.feed_forward(attended)
        batch, anchors = lesson.anchors.shape
        steps, tokens = self.config.draft_length, lesson.tokens_from(0, self.config.draft_length)
        bias, states = lesson.context_bias(), [hidden]
        others = torch.full((anchors, anchors), MASKED, device=hidden.device).fill_diagonal_(0.0).expand(batch, -1, -1)
        for step in range(1, steps):
            rows = self.enter(hidden, tokens[..., step].flatten())
            turned = self.rotary_of(lesson.anchors - 1 + step, lesson)
            queries, *own = self.attention.project(rows, *turned)
            keys, values = (
                torch.cat((cached, new.reshape(batch, anchors, *new.shape[1:])), dim=1)
                for cached, new in zip((keys, values), own, strict=True)
            )
            bias = torch.cat((bias, others), dim=-1)
            found = self.attention.read(queries, keys.permute(2, 0, 1, 3), values.permute(2, 0, 1, 3), bias)
            hidden = self.feed_forward(self.attention.add(rows, found))
            states.append(hidden)
        features, logits = self.score(torch.stack(states, dim=1).view(batch, anchors, steps, -1))
        return Answers(logits, features=features if self.head_out is None else None)
