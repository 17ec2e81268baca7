"""How probable the target found the tokens that it committed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flashsd_ray.types import TokenLogprob


def token_logprobs(
    logits: Tensor,  # [>= T, V] float, row t decided on token t
    token_ids: Sequence[int],  # length T
    num_top: int,  # alternatives to report
) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of the tokens and of the most probable ones, as the model gave them (temperature 1)."""
    logprobs = torch.log_softmax(logits[: len(token_ids)].float(), dim=-1)
    chosen = logprobs.gather(1, torch.tensor(token_ids, device=logits.device)[:, None])[:, 0].tolist()
    best = logprobs.topk(min(num_top, logprobs.shape[-1]), dim=-1)
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(
        TokenLogprob(
            token_id=token_id,
            logprob=logprob,
            top=tuple(TokenLogprob(token_id=other, logprob=value) for other, value in zip(*top, strict=True)),
        )
        for token_id, logprob, top in zip(token_ids, chosen, tops, strict=True)
    )
