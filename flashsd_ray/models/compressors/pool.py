"""The compressor without parameters: means over bins."""

from __future__ import annotations

from torch import Tensor

from flashsd_ray.models.compressors.base import Compressor, pooled
from flashsd_ray.models.compressors.registry import register


@register("pool")
class PoolCompressor(Compressor):
    """Each latent is the mean of consecutive tokens."""

    def num_latents(self, num_tokens: int) -> int:
        """As many as configured, never more than there are tokens."""
        return min(self.config.num_latents, num_tokens)

    def forward(self, pieces: Tensor) -> Tensor:  # [P, N, E] -> [P, C, E]
        """Means over bins."""
        return pooled(pieces, self.num_latents(pieces.shape[1]))
