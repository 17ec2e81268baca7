"""The honest baseline: the drafter sees no visual token at all."""

from __future__ import annotations

from torch import Tensor

from flashsd_ray.models.compressors.base import Compressor
from flashsd_ray.models.compressors.registry import register


@register("hide")
class HideCompressor(Compressor):
    """Every piece becomes nothing (HiViS, arXiv 2509.23928: text rows carry what vision told them)."""

    def num_latents(self, num_tokens: int) -> int:
        """None."""
        return 0

    def forward(self, pieces: Tensor) -> Tensor:  # [P, N, E] -> [P, 0, E]
        """An empty tensor."""
        return pieces[:, :0]
