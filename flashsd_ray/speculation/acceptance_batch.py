"""Judging many blocks at once; equal to acceptance.py, which says what the words mean."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from flashsd_ray.errors import ProtocolError
from flashsd_ray.speculation.acceptance import AcceptanceRule, Judgement, accept_prefix, judge
from flashsd_ray.speculation.sampling import keyed_choice
from flashsd_ray.types import DraftBlock, SamplingParams


def judge_blocks(
    target_logits: Tensor,  # [R, V] float, the K+1 rows of each block one after the other
    blocks: Sequence[DraftBlock],
    samplings: Sequence[SamplingParams],  # of the request of each block
    rule: AcceptanceRule,
) -> list[Judgement]:
    """What judge says of each block, in order; greedy and coupled blocks share one draw and one transfer.

    Raises:
        ProtocolError: the logits or a proposal do not fit the drafts.
    """
    widths = [len(block.token_ids) + 1 for block in blocks]
    spans = list(pairwise(accumulate(widths, initial=0)))
    if len(target_logits) != sum(widths):
        raise ProtocolError(f"{len(blocks)} blocks need {sum(widths)} rows of logits, got {len(target_logits)}")
    followed = [rule == "coupled" or sampling.is_greedy for sampling in samplings]
    if not all(followed):
        # Rejection asks for one draw after another, so each block is judged on its own.
        rows = [target_logits[first:last] for first, last in spans]
        return [judge(*one, rule) for one in zip(rows, blocks, samplings, strict=True)]
    row_samplings = [s for s, width in zip(samplings, widths, strict=True) for _ in range(width)]
    positions = [block.start + row for block, width in zip(blocks, widths, strict=True) for row in range(width)]
    choices = keyed_choice(target_logits, row_samplings, positions).tolist()
    return [accept_prefix(choices[a:b], block.token_ids) for (a, b), block in zip(spans, blocks, strict=True)]


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
