"""FLASH+'s compressor: learned queries look at a piece, on top of its pooled rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashsd_ray.models.compressors.base import Compressor, CompressorConfig, pooled
from flashsd_ray.models.compressors.registry import register


@register("latent")
class LatentCompressor(Compressor):
    """Scaled multi-head cross attention from C learned queries, added to bin means; at first the bin means alone."""

    def __init__(self, config: CompressorConfig) -> None:
        super().__init__(config)
        inner = config.inner_width
        self.queries = nn.Parameter(torch.randn(config.num_latents, inner) * (inner / config.num_heads) ** -0.25)
        self.norm = nn.Parameter(torch.ones(config.width))
        self.key_value = nn.Linear(config.width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, config.width, bias=False)
        nn.init.normal_(self.key_value.weight, std=config.width**-0.5)
        nn.init.zeros_(self.output.weight)

    def num_latents(self, num_tokens: int) -> int:
        """The number of learned queries."""
        return self.config.num_latents

    def forward(self, pieces: Tensor) -> Tensor:  # [P, N, E] -> [P, C, E]
        """Pooled rows plus what the queries found."""
        count, tokens, width = pieces.shape
        heads = self.config.num_heads
        normed = F.rms_norm(pieces, (width,), self.norm.to(pieces.dtype), self.config.norm_eps)
        keys, values = self.key_value(normed).view(count, tokens, 2, heads, -1).permute(2, 0, 3, 1, 4)
        queries = self.queries.to(keys.dtype).view(-1, heads, keys.shape[-1]).transpose(0, 1)
        scores = torch.matmul(queries, keys.transpose(-1, -2)).float() * keys.shape[-1] ** -0.5
        found = torch.matmul(scores.softmax(dim=-1).to(values.dtype), values)  # [P, heads, C, inner / heads]
        found = found.transpose(1, 2).reshape(count, -1, self.config.inner_width)
        added: Tensor = self.output(found)
        return pooled(pieces, found.shape[1]) + added
