"""The paper's compressor, as its formula has it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flashsd_ray.models.compressors.base import Compressor, CompressorConfig
from flashsd_ray.models.compressors.registry import register


@register("flash")
class FlashCompressor(Compressor):
    """Softmax attention of learned queries over the rows themselves: no projections, no heads, no scaling.

    Source: FLASH, arXiv 2505.12728, section on latent-aware visual token compression.
    """

    def __init__(self, config: CompressorConfig) -> None:
        super().__init__(config)
        self.queries = nn.Parameter(torch.randn(config.num_latents, config.width) * config.width**-0.5)

    def num_latents(self, num_tokens: int) -> int:
        """The number of learned queries."""
        return self.config.num_latents

    def forward(self, pieces: Tensor) -> Tensor:  # [P, N, E] -> [P, C, E]
        """``softmax(C F^T) F``."""
        scores = torch.matmul(self.queries.to(pieces.dtype), pieces.transpose(1, 2)).float()
        return torch.matmul(scores.softmax(dim=-1).to(pieces.dtype), pieces)
