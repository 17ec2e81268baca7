"""Which rows of a prompt a drafter keeps: every text position, and a few latents in place of visual ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flashsd_ray.models.compressors import Compressor
from flashsd_ray.models.compressors.base import latent_positions, piece_bounds
from flashsd_ray.types import VisualSegment


@dataclass(frozen=True, slots=True, eq=False)
class PromptLayout:
    """The rows of one prompt in the drafter's cache, in the order of their positions."""

    text: Tensor  # [T] int64, prompt positions that stay rows of their own
    positions: Tensor  # [m] int64, of text rows and latents, ascending
    order: Tensor  # [m] int64, where each row stands in cat(text rows, latents)
    pieces: tuple[tuple[Tensor, int], ...]  # per length of piece: visual positions [P, N] int64, latents of each
    num_tokens: int  # n, positions of the prompt

    @property
    def num_rows(self) -> int:
        """Rows that the prompt takes in the drafter's cache."""
        return len(self.positions)

    @property
    def num_latents(self) -> int:
        """How many of the rows are latents."""
        return len(self.positions) - len(self.text)


def lay_out(
    num_tokens: int,
    segments: Sequence[VisualSegment],
    compressor: Compressor,
    device: torch.device,
) -> PromptLayout:
    """The layout of a prompt whose segments go through the compressor."""
    is_text = [True] * num_tokens
    by_length: dict[int, list[int]] = {}  # length of piece -> starts
    for segment in segments:
        is_text[segment.start : segment.stop] = [False] * segment.num_tokens
        for start, length in piece_bounds(segment.start, segment.num_tokens, compressor.config.piece_tokens):
            by_length.setdefault(length, []).append(start)
    text = [position for position, kept in enumerate(is_text) if kept]
    latents: list[int] = []
    pieces = []
    for length, starts in by_length.items():
        count = compressor.num_latents(length)
        latents += [position for start in starts for position in latent_positions(start, length, count)]
        grid = torch.tensor(starts)[:, None] + torch.arange(length)
        pieces.append((grid.to(device), count))
    positions = text + latents
    order = sorted(range(len(positions)), key=positions.__getitem__)  # stable: equal positions keep their order
    return PromptLayout(
        text=torch.tensor(text, dtype=torch.int64, device=device),
        positions=torch.tensor([positions[row] for row in order], dtype=torch.int64, device=device),
        order=torch.tensor(order, dtype=torch.int64, device=device),
        pieces=tuple(pieces),
        num_tokens=num_tokens,
    )


def compress(
    rows: Tensor,  # [n, E], of all prompt positions
    layout: PromptLayout,
    compressor: Compressor,
) -> Tensor:  # [latents, E]
    """The latents of all pieces, in the order that ``layout.order`` expects."""
    parts = [compressor(rows[grid]).flatten(0, 1) for grid, count in layout.pieces if count]
    return torch.cat(parts) if parts else rows[:0]
