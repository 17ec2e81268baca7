"""The optimizer of every stage: Muon for matrices, AdamW for the rest, one time-based schedule.

Weights may be bf16: the optimizer then moves float32 masters and rounds them back.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

WARMUP_SHARE = 0.03
FINAL_SHARE = 0.02  # of the learning rate, at the end


class Optimizers:
    """Muon and AdamW, stepped together."""

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.weights: list[nn.Parameter] = []
        self.masters: list[torch.Tensor] = []
        matrices: list[torch.Tensor] = []
        others: list[torch.Tensor] = []
        for name, weight in named_parameters:
            if not weight.requires_grad:
                continue
            master = weight if weight.dtype == torch.float32 else weight.detach().float()
            self.weights.append(weight)
            self.masters.append(master)
            is_matrix = weight.ndim == 2 and "layers." in name
            (matrices if is_matrix else others).append(master)
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.97), weight_decay=0.0)
        ]
        if matrices:
            muon = torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
            self._parts.append(muon)

    def step(self, progress: float, clip_norm: float = 1.0) -> float:
        """The weights moved one step; returns the norm of the gradient.

        Effects: gradients are cleared.
        """
        for weight, master in zip(self.weights, self.masters, strict=True):
            if weight is not master and weight.grad is not None:
                master.grad = weight.grad.float()
                weight.grad = None
        norm = nn.utils.clip_grad_norm_(self.masters, clip_norm)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self.learning_rate * schedule(progress)
            part.step()
            part.zero_grad(set_to_none=True)
        self._round()
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes back."""
        return {
            "parts": [part.state_dict() for part in self._parts],
            "masters": [master.detach() for master in self.masters],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Moments and weights are those of `state`."""
        for part, saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.copy_(saved)
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        for weight, master in zip(self.weights, self.masters, strict=True):
            if weight is not master:
                weight.copy_(master)


def schedule(progress: float) -> float:
    """The share of the learning rate at this share of the time: warm up, then a cosine."""
    if progress < WARMUP_SHARE:
        return max(progress, 1e-3) / WARMUP_SHARE
    share = min(1.0, (progress - WARMUP_SHARE) / (1.0 - WARMUP_SHARE))
    return FINAL_SHARE + (1.0 - FINAL_SHARE) * 0.5 * (1.0 + math.cos(math.pi * share))
