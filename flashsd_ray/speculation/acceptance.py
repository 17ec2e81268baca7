"""Which drafts stand and what is committed after them: the kernel that makes speculative decoding lossless.

* accepted token: a draft that the target keeps.
* recovered token: what the target emits instead of the first draft that it rejects.
* bonus token: what the target emits after a block in which every draft was accepted.
* anchor: the last committed token; row *i* of a block's logits judges the token at position ``start + i``.
* tau: tokens committed by one verify pass, accepted and recovered or bonus.

The functions here are readable on purpose: they are the oracle for every faster version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from flashsd_ray.errors import ProtocolError
from flashsd_ray.speculation.randomness import Draws, KeyedDraws, Purpose
from flashsd_ray.speculation.sampling import highest_ids, warp
from flashsd_ray.types import DraftBlock, Proposal, SamplingParams

AcceptanceRule = Literal["coupled", "rejection"]

# Wide enough for proposals that were normalised in float32.
_SUM_TOLERANCE = 1e-5


class Judgement(NamedTuple):
    """What one verify pass commits for a block."""

    num_accepted: int  # a
    token_ids: tuple[int, ...]  # length a + 1: a accepted, then one recovered or bonus token


def judge(
    target_logits: Tensor,  # [K+1, V] float
    block: DraftBlock,
    sampling: SamplingParams,
    rule: AcceptanceRule,  # how sampled requests are judged; greedy ones have one rule
) -> Judgement:
    """The tokens that the block commits; their law is the target's own, whoever drafted.

    Raises:
        ProtocolError: the logits or the proposal do not fit the drafts.
    """
    if len(target_logits) != len(block.token_ids) + 1:
        raise ProtocolError(f"{len(block.token_ids)} drafts need one row of logits more, got {len(target_logits)} rows")
    if sampling.is_greedy:
        return accept_greedy(target_logits, block.token_ids)
    target_probs = warp(target_logits, sampling)
    draws = KeyedDraws(sampling.seed)
    if rule == "coupled":
        return accept_coupled(target_probs, block.token_ids, block.start, draws)
    proposal = certain_proposal(block.token_ids) if block.proposal is None else block.proposal
    check_proposal(proposal, block.token_ids, vocab_size=target_logits.shape[-1])
    return accept_rejection(target_probs, block.token_ids, proposal, block.start, draws)


def accept_greedy(
    target_logits: Tensor,  # [K+1, V] float
    draft_ids: Sequence[int],  # length K
) -> Judgement:
    """The longest prefix of the drafts that the target would have chosen, then its next choice."""
    return accept_prefix(highest_ids(target_logits).tolist(), draft_ids)


def accept_prefix(
    choices: Sequence[int],  # length K+1, the target's own token after each prefix of the drafts
    draft_ids: Sequence[int],  # length K
) -> Judgement:
    """The target's own tokens, as far as the drafts foretold what they follow, and one more."""
    num_accepted = 0
    while num_accepted < len(draft_ids) and draft_ids[num_accepted] == choices[num_accepted]:
        num_accepted += 1
    return Judgement(num_accepted, tuple(choices[: num_accepted + 1]))


def accept_coupled(
    target_probs: Tensor,  # [K+1, V] float64, warped
    draft_ids: Sequence[int],  # length K
    start: int,
    draws: Draws,
) -> Judgement:
    """The target's own draws, as far as the drafts foretold them, and one more.

    With keyed draws these are exactly the tokens that plain sampling with the same seed emits, whatever was drafted.

    Source: Daliri et al. 2024, "Coupling without communication and drafter-invariant speculative decoding",
    arXiv 2408.07978.
    """
    token_ids: list[int] = []
    for row, probs in enumerate(target_probs):
        token_ids.append(draws.token(probs, start + row, Purpose.TOKEN))
        if row == len(draft_ids) or draft_ids[row] != token_ids[row]:
            break
    return Judgement(len(token_ids) - 1, tuple(token_ids))


def accept_rejection(
    target_probs: Tensor,  # [K+1, V] float64, warped
    draft_ids: Sequence[int],  # length K
    proposal: Proposal,  # what each draft was drawn from
    start: int,
    draws: Draws,
) -> Judgement:
    """Drafts kept with probability min(1, target / draft), then a token of the residual or after the block.

    Source: Leviathan et al. 2023, arXiv 2211.17192, algorithm 1.
    """
    support_ids = proposal.support_ids.to(target_probs.device)  # [K, S]
    support_probs = proposal.support_probs.to(target_probs)  # [K, S]
    chances = acceptance_probabilities(target_probs, draft_ids, support_ids, support_probs).tolist()
    for row, chance in enumerate(chances):
        if not draws.accept(chance, start + row):
            recovery_probs = residual(target_probs[row], support_ids[row], support_probs[row])
            recovered = draws.token(recovery_probs, start + row, Purpose.RECOVER)
            return Judgement(row, (*draft_ids[:row], recovered))
    # The published FLASH code draws the bonus token from the unwarped target, which is another distribution.
    bonus = draws.token(target_probs[-1], start + len(draft_ids), Purpose.BONUS)
    return Judgement(len(draft_ids), (*draft_ids, bonus))


def acceptance_probabilities(
    target_probs: Tensor,  # [K+1, V] float64
    draft_ids: Sequence[int],  # length K
    support_ids: Tensor,  # [K, S] int64
    support_probs: Tensor,  # [K, S] float64
) -> Tensor:  # [K] float64 in [0, 1]
    """The probability of keeping each draft when all before it were kept: min(1, target / draft)."""
    drafts = torch.tensor(draft_ids, dtype=torch.int64, device=target_probs.device).unsqueeze(-1)  # [K, 1]
    draft_probs = (support_probs * (support_ids == drafts)).sum(-1)
    return (target_probs[:-1].gather(-1, drafts).squeeze(-1) / draft_probs).clamp(max=1.0)


def residual(
    target_probs: Tensor,  # [V] float64
    support_ids: Tensor,  # [S] int64
    support_probs: Tensor,  # [S] float64
) -> Tensor:  # [V] float64
    """The distribution of the recovered token: normalised max(0, target - draft).

    Where the target exceeds the draft nowhere the two are equal and nothing is rejected, so the target is returned.

    Source: Leviathan et al. 2023, arXiv 2211.17192, section 2.3.
    """
    excess = target_probs.index_add(0, support_ids, -support_probs).clamp(min=0.0)
    total = excess.sum()
    return excess / total if bool(total > 0) else target_probs


def certain_proposal(draft_ids: Sequence[int]) -> Proposal:
    """The proposal of drafts that are a function of the context: each had probability one."""
    support_ids = torch.tensor(draft_ids, dtype=torch.int64).unsqueeze(-1)
    return Proposal(support_ids=support_ids, support_probs=torch.ones(support_ids.shape, dtype=torch.float64))


def check_proposal(proposal: Proposal, draft_ids: Sequence[int], vocab_size: int) -> None:
    """The rejection rule is exact for these drafts.

    Raises:
        ProtocolError: the proposal is not one distribution for each draft, or the draft cannot have come from it.
    """
    support_ids, support_probs = proposal.support_ids, proposal.support_probs
    if support_ids.shape != support_probs.shape or len(support_ids) != len(draft_ids):
        raise ProtocolError(f"a proposal for {len(draft_ids)} drafts must be [K, S], got {tuple(support_ids.shape)}")
    if not bool(((support_ids >= 0) & (support_ids < vocab_size)).all()):
        raise ProtocolError(f"drafts and their proposal must be token ids below {vocab_size}")
    if not bool(((support_probs.sum(-1) - 1.0).abs() < _SUM_TOLERANCE).all() & (support_probs >= 0).all()):
        raise ProtocolError("the rows of a proposal must be probabilities that sum to one")
    drafts = torch.tensor(draft_ids, dtype=torch.int64, device=support_ids.device).unsqueeze(-1)
    if not bool(((support_ids == drafts) & (support_probs > 0)).any(-1).all()):
        raise ProtocolError(f"drafts {tuple(draft_ids)} must have probability in the proposal they were drawn from")
