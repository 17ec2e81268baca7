"""Noise in place of latents: it has their number and their size, and knows nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flashsd_ray.models.drafters.network import DrafterNetwork


def scramble(network: DrafterNetwork, seed: int = 0) -> None:
    """From now on the network's compressor gives noise."""
    generator = torch.Generator().manual_seed(seed)

    def noise(_module: Any, _inputs: Any, latents: Tensor) -> Tensor:
        if not latents.numel():
            return latents
        drawn = torch.randn(latents.shape, generator=generator).to(latents)
        return drawn * latents.detach().float().std().to(latents)

    network.compressor.register_forward_hook(noise)
