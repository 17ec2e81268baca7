"""What a drafter would be worth: acceptance slot by slot, and tau of the rounds that it would really draft."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.training.drafter.batches import Lessons
from flashsd_ray.training.drafter.readings import Reading

ANCHORS_TOGETHER = 128  # of one answer; their logits over a large vocabulary would not all fit into memory


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
    slots = network.config.draft_length
    rounds = tokens = 0
    tried, right = torch.zeros(slots), torch.zeros(slots)
    overlap, reached = torch.zeros(slots), torch.zeros(slots)
    sampled_tau: list[float] = []
    for reading in lessons.pool.readings:
        worth, real = _worth(network, lessons, reading, is_autocast)
        if reading.is_greedy:
            standing = worth.cumprod(dim=-1)
            before = torch.cat((torch.ones_like(standing[:, :1]), standing[:, :-1]), dim=-1) * real
            tried += before.sum(dim=0)
            right += standing.sum(dim=0)
            place, accepted = 0, [int(count) for count in standing.sum(dim=-1).tolist()]
            while place < len(accepted):
                rounds += 1
                tokens += accepted[place] + 1
                place += accepted[place] + 1
        else:
            overlap += worth.sum(dim=0)
            reached += real.sum(dim=0)
            sampled_tau += (1.0 + worth.cumprod(dim=-1).sum(dim=-1)).tolist()
    return Quality(
        greedy_tau=tokens / max(1, rounds),
        greedy_slots=tuple((right / tried.clamp(min=1)).tolist()),
        sampled_tau=sum(sampled_tau) / max(1, len(sampled_tau)),
        sampled_slots=tuple((overlap / reached.clamp(min=1)).tolist()),
        num_greedy=sum(reading.is_greedy for reading in lessons.pool.readings),
        num_sampled=sum(not reading.is_greedy for reading in lessons.pool.readings),
    )


def _worth(
    network: DrafterNetwork, lessons: Lessons, reading: Reading, is_autocast: bool
) -> tuple[Tensor, Tensor]:  # [A, K] float32, [A, K] bool
    """Behind every anchor, slot by slot: whether the draft is right, or its chance to stand; and what is in the answer."""
    anchors = torch.arange(reading.num_prompt_tokens, reading.num_prompt_tokens + reading.num_anchors)
    parts = []
    for some in anchors.split(ANCHORS_TOGETHER):
        with torch.autocast(network.view.device.type, torch.bfloat16, enabled=is_autocast):
            batch = lessons.batch([reading], some[None])
            logits = network(batch.lesson).logits
            if reading.is_greedy:
                worth = (logits.argmax(dim=-1) == batch.token_ids).float()
            else:
                target = F.linear(batch.finals, network.view.lm_head).float().softmax(-1)
                worth = torch.minimum(logits.float().softmax(-1), target).sum(dim=-1)
        parts.append(((worth * batch.is_real)[0].cpu(), batch.is_real[0].cpu()))
    return torch.cat([worth for worth, _ in parts]), torch.cat([real for _, real in parts])
