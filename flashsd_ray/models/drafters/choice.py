"""How logits become drafts: the one place where sampling parameters touch a drafter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flashsd_ray.speculation.acceptance import AcceptanceRule
from flashsd_ray.speculation.randomness import Purpose, draw_key, key_tensor, keyed_gumbels
from flashsd_ray.speculation.sampling import draft_proposal, highest_ids, keyed_choice
from flashsd_ray.types import Proposal, SamplingParams

SUPPORT_SIZE = 64  # S; holds nearly all of the mass, and a proposal of eight drafts stays under ten kilobytes


class DraftChoice:
    """Chooses the drafts of one round, slot by slot, each request by its own sampling parameters."""

    def __init__(
        self,
        samplings: Sequence[SamplingParams],
        starts: Sequence[int],  # position of the first draft of each request
        rounds: Sequence[int],  # of the blocks
        length: int,  # slots that will be chosen
        rule: AcceptanceRule = "coupled",
    ) -> None:
        self._samplings = samplings
        self._starts = starts
        self._rounds = rounds
        self._length = length
        sampled = [index for index, sampling in enumerate(samplings) if not sampling.is_greedy]
        self._is_greedy = not sampled
        self._is_truncated = any(samplings[index].top_k or samplings[index].top_p < 1.0 for index in sampled)
        self._supports: dict[int, list[Proposal]] = {index: [] for index in sampled if rule == "rejection"}
        self._noise: Tensor | None = None  # [B, K, V] float32

    @property
    def is_highest(self) -> bool:
        """Whether every draft is the highest of its logits once ``with_noise`` was added."""
        return self._is_greedy or not (self._supports or self._is_truncated)

    def greedy_rows(self, device: torch.device) -> Tensor:  # [B] bool
        """Which requests are greedy."""
        return torch.tensor([sampling.is_greedy for sampling in self._samplings], device=device)

    def with_noise(self, logits: Tensor) -> Tensor:  # [B, K, V] -> [B, K, V]
        """The logits of all slots plus what sampling adds to them."""
        return logits if self._is_greedy else self._make_noise(logits).add_(logits)

    def choose(
        self,
        logits: Tensor,  # [B, V]
        slot: int,
    ) -> Tensor:  # [B] int64
        """One token for each request; slots must be chosen in order."""
        if self._is_greedy:
            return highest_ids(logits)
        if self._supports:
            return self._choose_with_proposals(logits, slot)
        if self._is_truncated:
            return keyed_choice(logits, self._samplings, [start + slot for start in self._starts])
        if self._noise is None:
            self._noise = self._make_noise(logits)
        return highest_ids(logits + self._noise[:, slot])

    def proposal(self, index: int, length: int) -> Proposal | None:
        """The distributions that the first drafts of a request were drawn from; None when nothing was drawn."""
        supports = self._supports.get(index, [])[:length]
        if not supports:
            return None
        return Proposal(
            support_ids=torch.cat([support.support_ids for support in supports]),
            support_probs=torch.cat([support.support_probs for support in supports]),
        )

    def _make_noise(self, logits: Tensor) -> Tensor:  # [B, K, V] float32
        """What sampling adds to the logits of all slots, zero for greedy requests; equal to the target's own noise.

        The most probable token after adding Gumbel noise times the temperature is what ``keyed_choice`` would draw.
        """
        slots = range(self._length)
        keys = [
            draw_key(sampling.seed, start + slot, Purpose.TOKEN)
            for sampling, start in zip(self._samplings, self._starts, strict=True)
            for slot in slots
        ]
        temperatures = torch.tensor([sampling.temperature for sampling in self._samplings], device=logits.device)
        noise = keyed_gumbels(key_tensor(keys, logits.device), logits.shape[-1])
        return noise.view(len(self._samplings), self._length, -1).mul_(temperatures[:, None, None])

    def _choose_with_proposals(self, logits: Tensor, slot: int) -> Tensor:
        token_ids = highest_ids(logits)
        for index, supports in self._supports.items():
            chosen, support = draft_proposal(
                logits[index : index + 1],
                self._samplings[index],
                self._starts[index] + slot,
                self._rounds[index],
                SUPPORT_SIZE,
            )
            token_ids[index] = chosen[0]
            supports.append(support)
        return token_ids
