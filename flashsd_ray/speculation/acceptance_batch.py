"""Judging many blocks at once; equal to acceptance.py, which says what the words mean."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from flashsd_ray.errors import ProtocolError
from flashsd_ray.speculation.acceptance import AcceptanceRule, Judgement, accept_prefix, judge
from flashsd_ray.speculation.sampling import highest_ids, keyed_choice
from flashsd_ray.types import DraftBlock, SamplingParams


def judge_blocks(
    target_logits: Tensor,  # [R, V] float, the K+1 rows of each block one after the other
    blocks: Sequence[DraftBlock],
    samplings: Sequence[SamplingParams],  # of the request of each block
    rule: AcceptanceRule,
) -> list[Judgement]:
    """What judge says of each block, in order.

    Raises:
        ProtocolError: the logits or a proposal do not fit the drafts.
    """
    firsts = list(accumulate((len(block.token_ids) + 1 for block in blocks), initial=0))
    num_rows = firsts.pop()
    if len(target_logits) != num_rows:
        raise ProtocolError(f"{len(blocks)} blocks need {num_rows} rows of logits, got {len(target_logits)}")
    judgements: dict[int, Judgement] = {}
    greedy = [index for index, sampling in enumerate(samplings) if sampling.is_greedy]
    sampled = [index for index, sampling in enumerate(samplings) if not sampling.is_greedy]
    argmax_ids = highest_ids(target_logits).tolist() if greedy else []
    for index in greedy:
        judgements[index] = accept_prefix(argmax_ids[firsts[index] :], blocks[index].token_ids)
    if rule == "coupled":
        judgements |= _judge_coupled(target_logits, firsts, blocks, samplings, sampled)
    else:
        for index in sampled:
            rows = target_logits[firsts[index] : firsts[index] + len(blocks[index].token_ids) + 1]
            judgements[index] = judge(rows, blocks[index], samplings[index], rule)
    return [judgements[index] for index in range(len(blocks))]


def _judge_coupled(
    target_logits: Tensor,  # [R, V] float
    firsts: Sequence[int],  # row of each block's anchor
    blocks: Sequence[DraftBlock],
    samplings: Sequence[SamplingParams],
    judged: Sequence[int],  # indices of blocks
) -> dict[int, Judgement]:
    """Position by position, all blocks that still stand together: no row behind a rejected draft is drawn from."""
    choices: dict[int, list[int]] = {index: [] for index in judged}
    standing = list(judged)
    row = 0
    while standing:
        logits = target_logits[[firsts[index] + row for index in standing]]
        positions = [blocks[index].start + row for index in standing]
        drawn = keyed_choice(logits, [samplings[index] for index in standing], positions).tolist()
        for index, token_id in zip(standing, drawn, strict=True):
            choices[index].append(token_id)
        standing = [index for index in standing if blocks[index].token_ids[row : row + 1] == (choices[index][row],)]
        row += 1
    return {index: Judgement(len(drawn) - 1, tuple(drawn)) for index, drawn in choices.items()}


def judge_greedy_batch(
    argmax_ids: Tensor,  # [B, R] int64, the target's own token after each prefix of the drafts
    drafts: Tensor,  # [B, R-1] int64, padded with anything
    lengths: Tensor,  # [B] int64, drafts in each row
) -> Tensor:  # [B] int64
    """How many drafts stand in each row; with *a* of them, the row commits its first a + 1 argmax ids.

    Serves the coupled rule too, when the target's keyed choices take the place of the argmax ids.
    """
    is_draft = torch.arange(drafts.shape[1], device=drafts.device) < lengths.unsqueeze(1)
    agrees = (argmax_ids[:, :-1] == drafts) & is_draft
    return agrees.cumprod(dim=1).sum(dim=1)
