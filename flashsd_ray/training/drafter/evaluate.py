"""What a drafter would be worth: acceptance slot by slot, and tau of the rounds that it would really draft."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.training.drafter.batches import Lessons


@dataclass(frozen=True, slots=True)
class Quality:
    """Averages over held-out answers."""

    greedy_tau: float  # tokens committed per verify pass on greedy answers, walked round by round
    greedy_slots: tuple[float, ...]  # chance that slot i is right when all before it were
    sampled_tau: float  # 1 + sum of products of sum(min(p, q)), on sampled answers
    sampled_slots: tuple[float, ...]  # mean of sum(min(p, q)) at slot i
    num_greedy: int  # answers
    num_sampled: int

    def to_json(self) -> dict[str, Any]:
        """Rounded for reading."""
        rounded: dict[str, Any] = {}
        for name, value in asdict(self).items():
            rounded[name] = [round(v, 3) for v in value] if isinstance(value, tuple) else round(value, 3)
        return rounded


@torch.no_grad()
def evaluate(network: DrafterNetwork, lessons: Lessons, *, is_autocast: bool) -> Quality:
    """The drafter's quality on all readings of ``lessons``."""
    slots, device = network.config.draft_length, network.view.device
    rounds = tokens = 0
    tried, right = torch.zeros(slots), torch.zeros(slots)
    overlap, reached = torch.zeros(slots), torch.zeros(slots)
    sampled_tau: list[float] = []
    for index, reading in enumerate(lessons.readings):
        anchors = torch.arange(reading.num_prompt_tokens, reading.num_prompt_tokens + reading.num_anchors)
        with torch.autocast(device.type, torch.bfloat16, enabled=is_autocast):
            batch = lessons.batch([index], anchors[None])
            answers = network(batch.lesson)
            target_logits = F.linear(batch.finals, network.view.lm_head)
        real = batch.is_real[0].cpu()
        if reading.is_greedy:
            hits = ((answers.logits.argmax(dim=-1) == batch.token_ids) & batch.is_real)[0].cpu()  # [A, K]
            standing = hits.cumprod(dim=-1)
            before = torch.cat((torch.ones_like(standing[:, :1]), standing[:, :-1]), dim=-1) * real
            tried += before.sum(dim=0)
            right += standing.sum(dim=0)
            place, accepted = 0, standing.sum(dim=-1).tolist()
            while place < len(accepted):
                rounds += 1
                tokens += accepted[place] + 1
                place += accepted[place] + 1
        else:
            draft, target = answers.logits.float().softmax(-1), target_logits.float().softmax(-1)
            alike = torch.minimum(draft, target).sum(dim=-1)[0].cpu()
            overlap += (alike * real).sum(dim=0)
            reached += real.sum(dim=0)
            sampled_tau += (1.0 + ((alike * real).cumprod(dim=-1)).sum(dim=-1)).tolist()
    return Quality(
        greedy_tau=tokens / max(1, rounds),
        greedy_slots=tuple((right / tried.clamp(min=1)).tolist()),
        sampled_tau=sum(sampled_tau) / max(1, len(sampled_tau)),
        sampled_slots=tuple((overlap / reached.clamp(min=1)).tolist()),
        num_greedy=sum(reading.is_greedy for reading in lessons.readings),
        num_sampled=sum(not reading.is_greedy for reading in lessons.readings),
    )
