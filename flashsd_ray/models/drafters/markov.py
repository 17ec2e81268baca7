"""A low-rank bigram model that lets parallel slots see the token chosen in the slot before, and a confidence head.

Source: DSpark, arXiv 2607.05147.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_TABLE = 1 << 23  # entries; below, one row of a ready product is read faster than the product is made


class MarkovHead(nn.Module):
    """Adds to each slot's logits what the token before it suggests; at first nothing."""

    def __init__(self, vocab_size: int, width: int, rank: int) -> None:
        super().__init__()
        self.previous = nn.Parameter(torch.randn(vocab_size, rank) * max(1, rank) ** -0.5)
        self.next = nn.Parameter(torch.zeros(vocab_size, rank))
        self.confidence = nn.Linear(width + rank, 2)  # greedy, sampled
        nn.init.zeros_(self.confidence.weight)
        nn.init.zeros_(self.confidence.bias)
        self._table: np.ndarray | None = None  # [V, V] float32
        self._stands: tuple[np.ndarray, np.ndarray] | None = None  # [E, 2] and, the bias included, [V, 2] float32

    def freeze(self) -> None:
        """Weights no longer change: on a CPU, small vocabularies get their whole table of suggestions made ready."""
        if self.previous.device.type == "cpu" and len(self.previous) ** 2 <= LARGEST_TABLE:
            previous, weight = self.previous.detach().float(), self.confidence.weight.detach().float()
            self._table = (previous @ self.next.detach().float().t()).numpy()
            width = weight.shape[1] - previous.shape[1]
            told = previous @ weight[:, width:].t() + self.confidence.bias.detach().float()
            self._stands = weight[:, :width].t().contiguous().numpy(), told.numpy()

    def add(
        self,
        logits: Tensor,  # [.., V]
        previous: Tensor,  # [..] int64
    ) -> Tensor:  # [.., V]
        """The logits with the suggestions of the tokens before."""
        return logits + F.linear(F.embedding(previous, self.previous), self.next)

    def follow(
        self,
        logits: Tensor,  # [B, K, V]
        anchors: Tensor,  # [B] int64
    ) -> Tensor:  # [B, K] int64
        """The highest token of each slot, given the one chosen before it."""
        if self._table is not None:
            # A slot takes one microsecond in numpy and six in torch, and there are many slots in a second.
            rows = logits.float().numpy()
            return torch.tensor([_chain(*pair, self._table) for pair in zip(rows, anchors.tolist(), strict=True)])
        chosen = [anchors]
        for slot in range(logits.shape[1]):
            chosen.append(self.add(logits[:, slot], chosen[-1]).argmax(dim=-1))
        return torch.stack(chosen[1:], dim=1)

    def stand_logits(
        self,
        hidden: Tensor,  # [.., E], after the head's norm
        previous: Tensor,  # [..] int64
    ) -> Tensor:  # [.., 2]
        """Log-odds that the draft of each slot stands, for a greedy and for a sampled request."""
        if self._stands is not None:
            seen, told = self._stands
            return torch.from_numpy(hidden.float().numpy() @ seen + told[previous.numpy()])
        rows = torch.cat((hidden, F.embedding(previous, self.previous).to(hidden.dtype)), dim=-1)
        odds: Tensor = self.confidence(rows)
        return odds


def _chain(logits: np.ndarray, previous: int, table: np.ndarray) -> list[int]:  # [K, V] -> length K
    chosen = []
    for row in logits:
        previous = int((row + table[previous]).argmax())
        chosen.append(previous)
    return chosen
