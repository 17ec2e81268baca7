"""No compression."""

from __future__ import annotations

from torch import Tensor

from flashsd_ray.models.compressors.base import Compressor
from flashsd_ray.models.compressors.registry import register


@register("full")
class FullCompressor(Compressor):
    """Every visual token stays a row of its own."""

    def num_latents(self, num_tokens: int) -> int:
        """All of them."""
        return num_tokens

    def forward(self, pieces: Tensor) -> Tensor:  # [P, N, E] -> [P, N, E]
        """The rows themselves."""
        return pieces
