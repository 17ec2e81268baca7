"""What a compressor is: visual rows in, fewer rows out; it knows nothing of targets and drafters."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from flashsd_ray.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressorConfig:
    """Everything that fixes the shape of a compressor."""

    name: str
    width: int  # E
    num_latents: int = 4  # C, for each piece
    piece_tokens: int = 0  # longer segments are cut into pieces of about this length; 0: never
    num_heads: int = 4
    inner_width: int = 128  # of all heads together
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Raises ConfigError when a size is out of range."""
        if min(self.width, self.num_latents, self.num_heads) < 1 or self.piece_tokens < 0:
            raise ConfigError(f"compressor sizes must be positive, got {self}")
        if self.inner_width % self.num_heads:
            raise ConfigError(f"inner_width {self.inner_width} is not a multiple of num_heads {self.num_heads}")


class Compressor(nn.Module):
    """Turns visual rows into latents, one piece of a segment at a time."""

    def __init__(self, config: CompressorConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def has_parameters(self) -> bool:
        """Whether there is anything to train."""
        return any(True for _ in self.parameters())

    def num_latents(self, num_tokens: int) -> int:
        """How many latents a piece of so many tokens becomes."""
        raise NotImplementedError

    def forward(
        self,
        pieces: Tensor,  # [P, N, E]
    ) -> Tensor:  # [P, C, E]
        """The latents of pieces of equal length."""
        raise NotImplementedError


def piece_bounds(start: int, num_tokens: int, piece_tokens: int) -> list[tuple[int, int]]:
    """A segment cut into ``(start, num_tokens)`` pieces whose lengths differ by one at most."""
    count = max(1, round(num_tokens / piece_tokens)) if piece_tokens else 1
    edges = [start + num_tokens * index // count for index in range(count + 1)]
    return [(first, last - first) for first, last in itertools.pairwise(edges) if last > first]


def latent_positions(start: int, num_tokens: int, num_latents: int) -> list[int]:
    """Where the latents of a piece stand: the middle of the bin that each one summarises."""
    return [start + (2 * index + 1) * num_tokens // (2 * num_latents) for index in range(num_latents)]


@lru_cache(maxsize=64)
def bin_means(num_tokens: int, num_latents: int) -> Tensor:  # [C, N] float32
    """The matrix that averages tokens over consecutive bins; with fewer tokens than bins, bins share tokens."""
    with torch.inference_mode(False):  # the matrix outlives the call, and training may need it next
        means = torch.zeros(num_latents, num_tokens)
        for index in range(num_latents):
            first = index * num_tokens // num_latents
            last = max(first + 1, (index + 1) * num_tokens // num_latents)
            means[index, first:last] = 1.0 / (last - first)
        return means


def pooled(pieces: Tensor, num_latents: int) -> Tensor:  # [P, N, E] -> [P, C, E]
    """Means over consecutive bins of tokens."""
    return torch.matmul(bin_means(pieces.shape[1], num_latents).to(pieces), pieces)
