"""What all trained drafters have in common: taps in, context rows out, and the target's own embedding and head."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashsd_ray.models import compressors
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.layers import Projection, RMSNorm, RotaryTable
from flashsd_ray.models.drafters.layout import PromptLayout, compress
from flashsd_ray.models.drafters.lesson import Answers, Lesson
from flashsd_ray.models.drafters.markov import MarkovHead
from flashsd_ray.models.drafters.round import DraftRound, Drafts
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.models.kv_cache import KVCache
from flashsd_ray.models.linear import prepare


class DrafterNetwork(nn.Module):
    """Fuses taps, compresses visual rows, embeds tokens and scores hidden rows; subclasses draft in between.

    Positions of context rows are those of the target. A context row stands where the target's row stood that was
    tapped; the anchor, being the last committed token, has none yet.
    """

    reads_following: ClassVar[bool] = False  # whether context rows depend on the token behind them
    fuses_taps: ClassVar[bool] = True  # whether taps are projected; if not, one tap enters as it is

    @classmethod
    def default_config(cls, view: TargetView, compressor: str) -> DrafterConfig:
        """Sizes that suit this kind of drafter and this target."""
        raise NotImplementedError

    def __init__(self, config: DrafterConfig, view: TargetView) -> None:
        super().__init__()
        self.config = config
        self.view = view
        self.is_frozen = False
        target_width = view.hidden_size
        if self.fuses_taps:
            self.tap_norm = RMSNorm(view.rms_norm_eps, config.width)
            self.tap_fuse = Projection(len(config.tap_layers) * target_width, config.width, bias=False)
        self.compressor = compressors.build(config.compressor)
        self.vision_in = Projection(target_width, config.width, bias=False) if config.source == "vision" else None
        narrow = config.width != target_width
        self.embed_in = Projection(target_width, config.width, bias=False) if narrow else None
        self.head_norm = RMSNorm(view.rms_norm_eps, config.width)
        self.head_out = Projection(config.width, target_width, bias=False) if narrow else None
        self.rotary = RotaryTable(config.head_dim, view.rope_theta)

    def fuse(self, taps: Tensor) -> Tensor:  # [.., M * D] -> [.., E]
        """One row of the drafter's width for each row of taps."""
        if not self.fuses_taps:
            return taps
        rows: Tensor = self.tap_norm(self.tap_fuse(taps))
        return rows

    def embed(self, token_ids: Tensor) -> Tensor:  # [..] int64 -> [.., E]
        """The target's embeddings at the drafter's width; ids behind the table are read as its last row."""
        rows = F.embedding(token_ids.clamp(max=len(self.view.embedding) - 1), self.view.embedding)
        return rows if self.embed_in is None else self.embed_in(rows)

    def score(self, hidden: Tensor) -> tuple[Tensor, Tensor]:  # [.., E] -> [.., E], [.., V]
        """The normed hidden rows and what the target's head makes of them."""
        normed = self.head_norm(hidden)
        rows = normed if self.head_out is None else self.head_out(normed)
        head = self.view.head if self.is_frozen else None
        return normed, F.linear(rows, self.view.lm_head) if head is None else head(rows)

    def enter(
        self,
        fused: Tensor,  # [m, E]
        following: Tensor,  # [m] int64, the token behind each row
    ) -> Tensor:  # [m, E]
        """Context rows of text positions."""
        return fused

    def enter_prompt(
        self,
        fused: Tensor,  # [n, E], of all prompt positions
        following: Tensor,  # [n] int64, the token behind each position
        layout: PromptLayout,
        embeddings: Tensor | None,  # [n, D], what the target's language model got; only read as a source
    ) -> Tensor:  # [rows of the layout, E]
        """Context rows of a whole prompt, its visual positions compressed."""
        visual = fused if self.vision_in is None or embeddings is None else self.vision_in(embeddings)
        latents = compress(visual, layout, self.compressor)
        text = self.enter(fused[layout.text], following[layout.text])
        return torch.cat((text, latents.to(text.dtype)))[layout.order]

    def rotary_of(self, positions: Tensor, lesson: Lesson) -> tuple[Tensor, Tensor]:  # [N, m] int64 -> [N * m, 1, Dh]
        """Cosine and signed sine of positions in a lesson; those of padding are never looked at."""
        longest = lesson.num_tokens + self.config.draft_length
        return self.rotary.rows(positions.flatten().clamp(max=longest), longest, lesson.context.dtype)

    def forward(self, lesson: Lesson) -> Answers:
        """What the network says behind every anchor when it is told the true tokens so far."""
        raise NotImplementedError

    def draft(self, work: DraftRound, cache: KVCache) -> Drafts:
        """The new context rows are in the cache, and every sequence has its drafts."""
        raise NotImplementedError

    @torch.inference_mode()
    def prepare(self, num_rows: int) -> None:
        """Drafts of up to so many rows meet no product of ours that their CPU has to prepare first."""
        fixed = [module.fixed for module in self.modules() if isinstance(module, Projection)]
        packed = [linear for linear in fixed if linear is not None and linear.packed is not None]
        prepare(packed, [linear for linear in packed if len(linear.weight) == self.config.width], num_rows)

    def freeze(self) -> None:
        """Weights no longer change: whatever can be made ready for drafting is."""
        self.is_frozen = True
        for module in self.modules():
            if isinstance(module, Projection | RMSNorm | MarkovHead):
                module.freeze()
