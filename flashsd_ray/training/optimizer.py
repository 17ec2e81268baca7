"""What moves the weights in every training here: Muon for the matrices inside a network, AdamW for the rest.

Weights may be bf16: the optimizer then moves float32 masters and rounds them back.

Source: Muon, arXiv 2502.16982 (rates matched to those of AdamW).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How fast weights move, and how that changes in the course of a training."""

    matrices: float  # by Muon
    others: float  # by AdamW
    warm_up: float  # share of the training in which the rates rise
    last: float  # share of the rates that is left at the end of the cosine
    decay: float = 0.0  # of matrices
    second_beta: float = 0.95  # of AdamW

    def share(self, progress: float) -> float:
        """The share of the rates at this share of the training: a linear rise, then a cosine."""
        if progress < self.warm_up:
            return max(progress / self.warm_up, 0.01)
        done = min(1.0, (progress - self.warm_up) / (1.0 - self.warm_up))
        return self.last + (1.0 - self.last) * 0.5 * (1.0 + math.cos(math.pi * done))


class Optimizers:
    """Muon and AdamW, stepped together."""

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        rates: Rates,
        is_inner: Callable[[str], bool],  # whether a matrix of this name maps hidden rows to hidden rows
    ) -> None:
        self.rates = rates
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
            (matrices if weight.ndim == 2 and is_inner(name) else others).append(master)
        self._parts: list[tuple[torch.optim.Optimizer, float]] = []
        if others:
            betas = (0.9, rates.second_beta)
            adam = torch.optim.AdamW(others, lr=rates.others, betas=betas, weight_decay=0.0, fused=True)
            self._parts.append((adam, rates.others))
        if matrices:
            adjust = "match_rms_adamw"
            muon = torch.optim.Muon(matrices, lr=rates.matrices, weight_decay=rates.decay, adjust_lr_fn=adjust)
            self._parts.append((muon, rates.matrices))

    def step(self, progress: float, clip_norm: float = 1.0) -> float:
        """The weights moved one step; returns the norm of the gradient.

        Effects: gradients are cleared.
        """
        for weight, master in zip(self.weights, self.masters, strict=True):
            if weight is not master and weight.grad is not None:
                master.grad = weight.grad.float()
                weight.grad = None
        norm = nn.utils.clip_grad_norm_(self.masters, clip_norm)
        for part, rate in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * self.rates.share(progress)
            part.step()
            part.zero_grad(set_to_none=True)
        self._round()
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes back."""
        return {
            "parts": [part.state_dict() for part, _ in self._parts],
            "masters": [master.detach() for master in self.masters],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Moments and weights are those of `state`."""
        for (part, _), saved in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.copy_(saved)
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        for weight, master in zip(self.weights, self.masters, strict=True):
            if weight is not master:
                weight.copy_(master)
