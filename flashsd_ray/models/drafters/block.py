"""FLASH+'s drafter: a whole block in one parallel forward, its tokens then chosen one after the other.

Source: DFlash, arXiv 2602.06036 (backbone), and DSpark, arXiv 2607.05147 (Markov and confidence heads).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from flashsd_ray.models.attention import MASKED
from flashsd_ray.models.drafters.architecture import DrafterConfig, one_layer, spread_taps
from flashsd_ray.models.drafters.choice import DraftChoice
from flashsd_ray.models.drafters.layers import DraftLayer, Projection
from flashsd_ray.models.drafters.lesson import Answers, Lesson
from flashsd_ray.models.drafters.markov import MarkovHead
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.models.drafters.registry import register
from flashsd_ray.models.drafters.round import DraftRound, Drafts
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.models.drafters.window import Span, open_window
from flashsd_ray.models.kv_cache import KVCache


@register("block")
class BlockNetwork(DrafterNetwork):
    """Slots ``[anchor, mask, mask, ..]`` see the context and each other, or those before them; slot i drafts what follows."""

    @classmethod
    def default_config(cls, view: TargetView, compressor: str) -> DrafterConfig:
        """One layer of the target's width, three taps, eight causal slots that begin with what the target thought last."""
        config = one_layer(
            "block", view, compressor, tap_layers=spread_taps(view.num_layers, 3), draft_length=8, markov_rank=64
        )
        return replace(config, has_lead=True, is_causal=True)

    def __init__(self, config: DrafterConfig, view: TargetView) -> None:
        super().__init__(config, view)
        if config.has_lead:
            self.masks = nn.Parameter(torch.randn(config.draft_length - 1, config.width) * config.width**-0.5)
            self.lead = Projection(2 * config.width, config.width, bias=False)
        else:
            self.mask = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.layers = nn.ModuleList([DraftLayer(config, view.rms_norm_eps) for _ in range(config.num_layers)])
        self.markov = MarkovHead(view.vocab_size, config.width, config.markov_rank)

    def slots(
        self,
        anchors: Tensor,  # [..] int64
        last: Tensor,  # [.., E], the context row right before each anchor
        count: int,  # K
    ) -> Tensor:  # [.., K, E]
        """What enters the block: the anchor's embedding, then masks.

        With a lead each slot knows from the start where the text stands, so that even a single layer can look for what
        comes next there; without it a mask has to learn that from attention before it can look for anything.
        """
        embedded = self.embed(anchors)
        learned: Tensor = self.masks if self.config.has_lead else self.mask
        learned = learned[: count - 1] if self.config.has_lead else learned
        masks = learned.to(embedded.dtype).expand(*anchors.shape, count - 1, -1)
        slots = torch.cat((embedded[..., None, :], masks), dim=-2)
        if not self.config.has_lead:
            return slots
        lead: Tensor = self.lead(torch.cat((embedded, last.to(embedded.dtype)), dim=-1))
        return slots + lead[..., None, :]

    def draft(self, work: DraftRound, cache: KVCache) -> Drafts:
        """The new context rows are in the cache, and every sequence has its drafts."""
        is_causal, batch, context = self.config.is_causal, len(work.sequences), work.context
        slots = work.length if is_causal else self.config.draft_length
        spans = [
            Span(sequence, count, range(start - 1, start - 1 + slots))
            for sequence, count, start in zip(work.sequences, work.counts, work.starts, strict=True)
        ]
        visible = [count + slots for count in work.counts]
        window = open_window(cache, [*work.spans, *spans], work.sequences, visible, slots if is_causal else 1)
        cos, signed_sin = self.rotary.rows(window.positions, window.longest, context.dtype)
        anchors = torch.tensor(work.anchors, dtype=torch.int64, device=context.device)
        hidden = self.slots(anchors, context[work.newest], slots).flatten(0, 1)  # [B * K, E]
        for index, layer in enumerate(self._layers()):
            queries, keys, values = layer.attention.project(torch.cat((context, hidden)), cos, signed_sin)
            cache.write(index, window.cache_rows, keys, values)
            keys, values = cache.read(index, window.keys, batch)
            hidden = layer.finish(hidden, layer.attention.read(queries[len(context) :], keys, values, window.bias))
        return self._choose(hidden.view(batch, slots, -1)[:, : work.length], anchors, work.choice)

    def _choose(self, hidden: Tensor, anchors: Tensor, choice: DraftChoice) -> Drafts:  # [B, K, E], [B]
        normed, logits = self.score(hidden)
        if choice.is_highest:
            token_ids = self.markov.follow(choice.with_noise(logits), anchors)
        else:
            chosen = [anchors]
            for slot in range(logits.shape[1]):
                chosen.append(choice.choose(self.markov.add(logits[:, slot], chosen[-1]), slot))
            token_ids = torch.stack(chosen[1:], dim=1)
        previous = torch.cat((anchors[:, None], token_ids[:, :-1]), dim=1)
        odds = self.markov.stand_logits(normed, previous)
        is_greedy = choice.greedy_rows(odds.device)[:, None]
        return Drafts(token_ids, torch.where(is_greedy, odds[..., 0], odds[..., 1]).sigmoid())

    def forward(self, lesson: Lesson) -> Answers:
        """What the slots behind every anchor say when each is told the true token before it."""
        slots, (batch, anchors) = self.config.draft_length, lesson.anchors.shape
        previous = lesson.tokens_from(0, slots)  # [N, A, K]
        hidden = self.slots(previous[..., 0], lesson.rows_before(), slots).reshape(batch * anchors * slots, -1)
        steps = torch.arange(slots, device=hidden.device)
        positions = torch.cat((lesson.positions, (lesson.anchors[..., None] + steps).flatten(1)), dim=1)
        cos, signed_sin = self.rotary_of(positions, lesson)
        own = _own_block(lesson, slots, self.config.is_causal)
        bias = torch.cat((lesson.context_bias().repeat_interleave(slots, dim=1), own), dim=-1)
        for layer in self._layers():
            rows = torch.cat((lesson.context, hidden.view(batch, anchors * slots, -1).to(lesson.context.dtype)), dim=1)
            parts = layer.attention.project(rows.flatten(0, 1), cos, signed_sin)
            queries, keys, values = (part.reshape(batch, -1, *part.shape[1:]) for part in parts)
            queries = queries[:, -anchors * slots :].flatten(0, 1)
            found = layer.attention.read(queries, keys.permute(2, 0, 1, 3), values.permute(2, 0, 1, 3), bias)
            hidden = layer.finish(hidden, found)
        normed, logits = self.score(hidden.view(batch, anchors, slots, -1))
        return Answers(self.markov.add(logits, previous), self.markov.stand_logits(normed.detach(), previous))

    def _layers(self) -> list[DraftLayer]:
        return [layer for layer in self.layers if isinstance(layer, DraftLayer)]


def _own_block(lesson: Lesson, slots: int, is_causal: bool) -> Tensor:  # [N, A * K, A * K] float32
    """Hides the slots of other anchors, and later ones of the same where that is asked."""
    batch, anchors = lesson.anchors.shape
    block = torch.arange(anchors, device=lesson.anchors.device).repeat_interleave(slots)
    hidden = block[:, None] != block
    if is_causal:
        hidden |= torch.ones_like(hidden).triu(1)
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, MASKED).expand(batch, -1, -1)
