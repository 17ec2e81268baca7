"""From logits to probabilities and tokens, for target and drafter alike; knows nothing of acceptance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from flashsd_ray.speculation.randomness import Purpose, draw_key, gumbel_choice, key_tensor, rows_at_once
from flashsd_ray.types import Proposal, SamplingParams

# A nucleus rarely holds more tokens than this; finding so many is ten times cheaper than sorting a vocabulary.
_NUCLEUS_GUESS = 256


def highest_ids(
    logits: Tensor,  # [.., V] float
) -> Tensor:  # [..] int64
    """The most probable token of each row, the lower id among equals.

    torch's argmax takes 6.7 us for a row of 2048 in bfloat16 on a CPU, numpy's 0.2: in a round of eight requests that was
    a thirtieth of the time (docs/log.md).
    """
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    known = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()  # to numpy
    return torch.as_tensor(known.detach().numpy().argmax(-1))


def warp(
    logits: Tensor,  # [.., V] float
    params: SamplingParams,
) -> Tensor:  # [.., V] float64
    """The distribution that tokens are drawn from: temperature, then top-k, then top-p.

    Top-p keeps the most probable tokens up to and including the one that crosses the threshold. Among equals the lower
    id is kept, so exactly k tokens pass top-k. Greedy parameters give all mass to the most probable token.

    Source: the logits warpers of the transformers library, which keep every token that ties with the k-th.
    """
    rows = logits.to(torch.float64).reshape(-1, logits.shape[-1])  # [R, V]
    # The highest becomes zero first, so that no temperature, however small, can overflow.
    rows = (rows - rows.amax(-1, keepdim=True)) / (params.temperature or 1.0)
    top_k = 1 if params.is_greedy else params.top_k
    if 0 < top_k < rows.shape[-1]:
        sizes = torch.full_like(rows[:, :1], top_k, dtype=torch.int64)
        rows = _keep_highest(rows, sizes, rows.topk(top_k).values[:, -1:])
    if params.top_p < 1.0 and top_k != 1:
        rows = _keep_highest(rows, *_nucleus(rows, params.top_p))
    return rows.softmax(-1).reshape(logits.shape)


def keyed_choice(
    logits: Tensor,  # [R, V] float
    samplings: Sequence[SamplingParams],  # length R, the request of each row
    positions: Sequence[int],  # length R, where each row's token will stand
    vocabulary: Tensor | None = None,  # [V] int64, token ids of the columns; None: 0 .. V-1
) -> Tensor:  # [R] int64
    """The token of each row: the most probable one, or for sampled requests the one its request's noise picks.

    Rows of one request at different positions, and of different requests, may stand in any order: no row sees another.
    """
    columns = highest_ids(logits)
    token_ids = columns if vocabulary is None else vocabulary[columns]
    groups: dict[tuple[float, int, float], list[int]] = defaultdict(list)
    for row, sampling in enumerate(samplings):
        if not sampling.is_greedy:
            groups[sampling.temperature, sampling.top_k, sampling.top_p].append(row)
    chunk = rows_at_once(logits.device, logits.shape[-1])
    for group in groups.values():
        for rows in (group[first : first + chunk] for first in range(0, len(group), chunk)):
            keys = [draw_key(samplings[row].seed, positions[row], Purpose.TOKEN) for row in rows]
            probs = warp(logits[rows], samplings[rows[0]])
            token_ids[rows] = gumbel_choice(probs, key_tensor(keys, logits.device), vocabulary)
    return token_ids


def draft_choice(
    draft_logits: Tensor,  # [K, V] float
    sampling: SamplingParams,
    start: int,  # position of the first draft
    vocabulary: Tensor | None = None,  # [V] int64, token ids of the columns of a truncated vocabulary
) -> tuple[int, ...]:  # length K
    """Drafts that meet the noise of the target's own draws, so that similar distributions mostly agree.

    For the coupled rule and for greedy requests; the block needs no proposal.

    Source: Daliri et al. 2024, "Coupling without communication and drafter-invariant speculative decoding",
    arXiv 2408.07978.
    """
    positions = range(start, start + len(draft_logits))
    return tuple(keyed_choice(draft_logits, [sampling] * len(positions), positions, vocabulary).tolist())


def draft_proposal(
    draft_logits: Tensor,  # [K, V] float
    sampling: SamplingParams,
    start: int,  # position of the first draft
    round_index: int,  # of the block, so that a position drafted again is drawn afresh
    support_size: int,  # S
    vocabulary: Tensor | None = None,  # [V] int64
) -> tuple[tuple[int, ...], Proposal]:
    """Drafts drawn from the S most probable tokens of each row, and exactly the distributions they were drawn from.

    For the rejection rule.
    """
    probs, columns = warp(draft_logits, sampling).topk(min(support_size, draft_logits.shape[-1]))  # [K, S]
    support_probs = probs / probs.sum(-1, keepdim=True)
    support_ids = columns if vocabulary is None else vocabulary[columns]
    keys = [draw_key(sampling.seed, start + i, Purpose.DRAFT, round_index) for i in range(len(draft_logits))]
    token_ids = gumbel_choice(support_probs, key_tensor(keys, probs.device), support_ids)
    return tuple(token_ids.tolist()), Proposal(support_ids=support_ids, support_probs=support_probs)


def _nucleus(rows: Tensor, top_p: float) -> tuple[Tensor, Tensor]:  # [R, 1] int64, [R, 1] float64
    """How many tokens hold the mass, and the logit of the last of them, for each row."""
    width = min(_NUCLEUS_GUESS, rows.shape[-1])
    total = rows.logsumexp(-1, keepdim=True)
    sizes, thresholds = _mass_prefix(rows.topk(width).values, total, top_p)
    if width < rows.shape[-1]:
        # Only the rows that need it are sorted, so that the answer for one row does not depend on the others.
        wide = (sizes[:, 0] == width).nonzero()[:, 0]
        ordered = rows[wide].sort(-1, descending=True).values
        sizes[wide], thresholds[wide] = _mass_prefix(ordered, total[wide], top_p)
    return sizes, thresholds


def _mass_prefix(ordered: Tensor, total: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Size and last value of the shortest prefix of falling logits that holds the mass top_p, or of all of them."""
    mass = (ordered - total).exp().cumsum(-1)
    mass_before = torch.nn.functional.pad(mass[:, :-1], (1, 0))
    sizes = (mass_before < top_p).sum(-1, keepdim=True)
    return sizes, ordered.gather(-1, sizes - 1)


def _keep_highest(rows: Tensor, sizes: Tensor, thresholds: Tensor) -> Tensor:  # [R, V]
    """The rows with all but the given number of highest values at minus infinity; lower columns win ties."""
    above = rows > thresholds
    tied = rows == thresholds
    room = sizes - above.sum(-1, keepdim=True)
    return rows.masked_fill(~(above | (tied & (tied.cumsum(-1) <= room))), -math.inf)
