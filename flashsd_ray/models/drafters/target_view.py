"""What a drafter may see of its target's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetView:
    """The parts of a target that its drafter shares; nothing here is copied or trained."""

    hidden_size: int  # D
    num_layers: int
    vocab_size: int  # V
    embedding: Tensor  # [V, D]
    lm_head: Tensor  # [V, D]; where ranks share a target only this rank's rows: they draft through ``head``
    rope_theta: float
    rms_norm_eps: float
    fingerprint: str
    head: Callable[[Tensor], Tensor] | None = None  # [m, D] -> [m, V], a faster way to apply lm_head

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device
