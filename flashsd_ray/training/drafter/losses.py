"""How far a drafter is from its target: hard labels, total variation, and whether it knows when it is right.

Source: DSpark, arXiv 2607.05147 (weights and confidence loss); EAGLE, arXiv 2401.15077 (feature loss).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flashsd_ray.models.drafters.lesson import Answers


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """What counts how much."""

    # Cross entropy with the true tokens. The paper has 0.1; 0.5 gave 0.2 more greedy tau here and cost sampling nothing.
    hard: float = 0.5
    overlap: float = 0.9  # total variation; early in training KL divergence, whose gradient does not vanish
    confidence: float = 1.0
    feature: float = 0.0  # SmoothL1 to the hidden states that the target's head reads
    slot_decay: float = 4.0  # slot i counts exp(-i / slot_decay); 0: all alike


# What the paper of FLASH trains with; its soft cross entropy is KL divergence up to a constant.
FLASH_PAPER = LossWeights(hard=0.0, overlap=0.1, feature=1.0, slot_decay=0.0)


@dataclass(frozen=True, slots=True)
class LossParts:
    """The loss and what it is made of, each an average over slots."""

    total: Tensor
    hard: float
    overlap: float  # mean of sum(min(p, q)), the probability that a sampled draft stands
    slots: Tensor  # [K], share of each slot's tokens that are right when it knows the true tokens before it


def drafting_loss(
    answers: Answers,
    target_logits: Tensor,  # [N, A, K, V]
    target_rows: Tensor,  # [N, A, K, D], what the target's head read
    token_ids: Tensor,  # [N, A, K] int64, true tokens
    is_real: Tensor,  # [N, A, K] bool
    weights: LossWeights,
    *,
    is_early: bool,  # the drafter hardly overlaps with the target yet
) -> LossParts:
    """The weighted average over all real slots."""
    slots = token_ids.shape[-1]
    steps = torch.arange(slots, device=token_ids.device, dtype=torch.float32)
    decay = torch.exp(-steps / weights.slot_decay) if weights.slot_decay else torch.ones_like(steps)
    share = is_real * decay
    share = share / share.sum().clamp(min=1e-6)
    log_draft = F.log_softmax(answers.logits.float(), dim=-1)
    log_target = F.log_softmax(target_logits.float(), dim=-1)
    target = log_target.exp()
    hard = F.nll_loss(log_draft.flatten(0, -2), token_ids.flatten(), reduction="none").view(token_ids.shape)
    variation = 0.5 * (target - log_draft.exp()).abs().sum(dim=-1)
    soft = (target * (log_target - log_draft)).sum(dim=-1) if is_early else variation
    per_slot = weights.hard * hard + weights.overlap * soft
    best = answers.logits.detach().argmax(dim=-1)
    if answers.stand_logits is not None:
        is_hit = (best == target_logits.argmax(dim=-1)).float()
        stands = torch.stack((is_hit, (1.0 - variation).detach().clamp(0.0, 1.0)), dim=-1)
        odds = answers.stand_logits.float()
        surprise = F.binary_cross_entropy_with_logits(odds, stands, reduction="none").mean(dim=-1)
        per_slot = per_slot + weights.confidence * surprise
    if weights.feature and answers.features is not None:
        distance = F.smooth_l1_loss(answers.features.float(), target_rows.float(), reduction="none").mean(dim=-1)
        per_slot = per_slot + weights.feature * distance
    return LossParts(
        total=(per_slot * share).sum(),
        hard=float((hard.detach() * share).sum()),
        overlap=float(((1.0 - variation.detach()) * share).sum()),
        slots=((best == token_ids) & is_real).sum(dim=(0, 1)) / is_real.sum(dim=(0, 1)).clamp(min=1),
    )
